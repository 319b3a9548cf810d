"""What the runners for clusters share: a site's options, the script of a job, and the logs it left.

A site's options are lines of a small file, in the manner of Kaldi's conf/queue.conf:

  command sbatch --partition=long --account=speech    # how jobs are submitted here
  option gpu=* --partition=gpu --gres=gpu:$0           # what --gpu N means here; $0 is N
  option gpu=0                                         # for this value nothing is added
  default time=1-0                                     # where the command line says nothing
  setup module load cuda                               # a line of shell, run before the job's command

An `option` here replaces all that the runner says of that option, `command` its command; the rest stays. A
setup line that fails ends the job. The file is --config FILE;
conf/NAME of the folder where the runner is called (the recipe) where it is there; or else tools/NAME.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time

from jobs import PROGRAM, Interrupted, catch_signals, count, fail, parse, seconds, show_failures

# What no site changes, and the runner itself sees to
ARRAY_OPTIONS = ("--max-jobs-run", "--config")
LAG_SECONDS = 5  # until the end of a log that another machine wrote is seen here


class Site:
    """What a site's file, or the runner's own lines, say."""

    def __init__(self, lines, place):
        self.command, self.options, self.defaults, self.setup = [], {}, {}, []
        for number, line in enumerate(lines, 1):
            word, _, rest = line.strip().partition(" ")
            match = re.fullmatch(r"(\w+)=(\S+)\s*(.*)", rest.strip())
            try:
                if not word or word.startswith("#"):
                    continue
                elif word == "setup":
                    self.setup.append(rest)
                elif word == "command" and rest:
                    self.command = shlex.split(rest, comments=True)
                elif word == "option" and match:
                    arguments = shlex.split(match[3], comments=True)
                    self.options.setdefault(match[1], {})[match[2]] = arguments
                elif word == "default" and match:
                    self.defaults[match[1]] = match[2]
                else:
                    raise ValueError("neither command, option, default nor setup, as --help shows them")
            except ValueError as error:
                fail(f"{place}:{number}: '{line.strip()}': {error}")

    def update(self, other):
        """Let the lines of another file come before these."""
        self.command = other.command or self.command
        self.options |= other.options
        self.defaults |= other.defaults
        self.setup += other.setup

    def arguments(self, values):
        """What the scheduler's command is given for {"mem": "4G"}."""
        result = []
        for name, value in {**self.defaults, **values}.items():
            if name not in self.options:
                known = [f"--{option.replace('_', '-')}" for option in self.options]
                fail(
                    f"unknown option --{name.replace('_', '-')}; known are {' '.join([*known, *ARRAY_OPTIONS])}; "
                    f"put the scheduler's own into the site's file, as `command {self.command[0]} ...`"
                )
            for_values = self.options[name]
            if value not in for_values and "*" not in for_values:
                fail(f"--{name.replace('_', '-')} {value}: this site knows {' '.join(for_values)} alone")
            words = for_values.get(value, for_values.get("*"))
            result += [word.replace("$0", clock(value) if name == "time" else value) for word in words]
        return result


def clock(time_limit):
    """H:MM:SS, which both schedulers read alike, of any time that --time takes."""
    minutes, rest = divmod(seconds(time_limit), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def read_site(own_lines, path, name):
    """The runner's own lines, and those of the site's file."""
    site = Site(own_lines.splitlines(), PROGRAM)
    if path is None:
        places = (os.path.join("conf", name), os.path.join(os.path.dirname(os.path.realpath(__file__)), name))
        path = next(filter(os.path.exists, places), None)
    if path is not None:
        try:
            with open(path, encoding="utf-8") as stream:
                site.update(Site(stream, path))
        except (OSError, UnicodeDecodeError) as error:
            fail(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}")
    return site


def split(text, name):
    """The pieces of a text between which every `name` becomes the job's number."""
    return text.split(name) if name else [text]


def quote(pieces):
    """A word of shell: the pieces as they stand, and the job's number between them."""
    return '"$job"'.join(shlex.quote(piece) if piece else "" for piece in pieces) or "''"


def script(setup, job, job_id, name, log, command, num_threads, without_gpu):
    """The script of a job: Kaldi's head and foot around the command. job: its number in the array, and
    job_id: the scheduler's name for it, as shell has them. log: what stands before and after that number."""
    head = shlex.join(command).replace("\n", "\n# ")
    path = os.environ.get("PYTHONPATH")
    setup = [
        f"{line} || {{ echo {shlex.quote(f'# setup failed: {line}')}; echo '# Ended (code 1)'; exit 1; }}"
        for line in setup
    ]
    lines = [
        "#!/bin/bash",
        f"job={job}",
        *setup,
        *([f"export PYTHONPATH={shlex.quote(path)}"] if path else []),  # a module that was loaded has its own
        f"export OMP_NUM_THREADS={num_threads} MKL_NUM_THREADS={num_threads}",
        *(["export CUDA_VISIBLE_DEVICES="] if without_gpu else []),
        "trap : TERM  # a job that is asked to end still writes the last lines",
        f'printf \'# %s\\n\' {quote(split(head, name))} "Started at $(LC_ALL=C date) on $(hostname), job {job_id}"; echo "#"',
        "SECONDS=0",
        f"{' '.join(quote(split(word, name)) for word in command)} </dev/null",
        "code=$? elapsed=$SECONDS",
        f'[ -z "$(tail -c 1 {quote(log)})" ] || echo',
        f'echo "# Accounting: time=$elapsed threads={num_threads}"',
        'echo "# Ended (code $code) at $(LC_ALL=C date), elapsed time $elapsed seconds"',
        "exit $code",
    ]
    return os.fsencode("\n".join(lines) + "\n")


def exit_code(log):
    """The exit code that a job's log ends with; None where there is none."""
    try:
        os.listdir(os.path.dirname(log))  # lets a network file system look anew
        with open(log, "rb") as stream:
            stream.seek(max(0, os.path.getsize(log) - 20000))
            codes = re.findall(rb"^# Ended \(code (\d+)\)", stream.read(), re.M)
    except FileNotFoundError:
        return None
    return int(codes[-1]) if codes else None


def hear(listener):
    """What was said next on a terminal; b"" at the end."""
    try:
        return os.read(listener, 4096)
    except OSError:  # Linux's way to tell that the other side is closed
        return b""


def end(process, listener, said, cancel):
    """End what was submitted and the command that waits for it; say what became of it."""
    if b"\n" not in said:  # it is just submitting: hear whether it did
        process.terminate()
        while heard := hear(listener):
            said += heard
    job = re.match(rb"\d+", said)
    what = "nothing was submitted"
    if job:
        name = job[0].decode()
        done = subprocess.run([*cancel, name], capture_output=True, text=True)
        what = f"job {name} was cancelled"
        if done.returncode:
            what = f"job {name} could not be cancelled: {done.stderr.strip() or done.stdout.strip()}"
    process.kill()
    process.wait()
    return what


def main(usage, own_lines, config, to_arguments, task, job_id, cancel):
    """Run the jobs of the command line through a scheduler; end as a runner does.

    own_lines: what a site's file may replace. config: the name of that file. to_arguments(numbers,
    at_once, title, log): what the scheduler's command is given for the array ([None]: there is none) and the
    log, whose pieces a job's number stands between.
    task, job_id: the environment variables with a job's number in the array, and with the job's name.
    cancel: the command that ends the job whose name is added.
    """
    options, name, numbers, log, command = parse(sys.argv[1:], usage, None)
    values = {option[2:].replace("-", "_"): value for option, value in options.items()}
    site = read_site(own_lines, values.pop("config", None), config)
    at_once = count("--max-jobs-run", values.pop("max_jobs_run", str(len(numbers))), 1)
    num_threads = count("--num-threads", values.setdefault("num_threads", "1"), 1)
    count("--gpu", values.get("gpu", "0"), 0)
    arguments = site.arguments(values)

    # A `name` in the log's name is the job's number, one in the folder where the runner is called is not.
    log = split(log, name)
    stem = os.path.basename("".join(log)).removesuffix(".log")
    log[0] = os.path.join(os.getcwd(), log[0])
    logs = [str(number).join(log) for number in numbers]
    for path in logs:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.exists(path):  # of an earlier call; its last line would count
                os.remove(path)
        except OSError as error:
            fail(f"{path}: {error.strerror}")
    title = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_")
    arguments += to_arguments(numbers, at_once, title or "job", log)
    job = f"${task}" if numbers != [None] else ""
    text = script(site.setup, job, f"${job_id}", name, log, command, num_threads, values.get("gpu") == "0")

    catch_signals()
    listener, speaker = os.openpty()  # on a terminal qsub says the job's name at once, and not at its end
    try:
        process = subprocess.Popen(
            [*site.command, *arguments], stdin=subprocess.PIPE, stdout=speaker, stderr=sys.stderr
        )
    except OSError as error:
        fail(f"{site.command[0]}: {error.strerror}; is this a machine of the cluster?")
    os.close(speaker)
    said = b""
    try:
        with contextlib.suppress(BrokenPipeError):  # it refused its options, and says so
            process.stdin.write(text)
            process.stdin.close()
        while heard := hear(listener):
            if b"\n" in heard and b"\n" not in said and (job := re.match(rb"\d+", said + heard)):
                print(f"{PROGRAM}: submitted job {job[0].decode()}", flush=True)
            said += heard
        process.wait()
    except Interrupted as interruption:
        print(f"{PROGRAM}: stopped; {end(process, listener, said, cancel)}", file=sys.stderr)
        sys.exit(128 + interruption.args[0])
    if not said and process.returncode:  # what it said of the reason stands above
        fail(f"{site.command[0]} did not take the jobs")

    patience = time.monotonic() + LAG_SECONDS
    codes = {path: exit_code(path) for path in logs}
    while None in codes.values() and time.monotonic() < patience:
        time.sleep(0.5)
        codes |= {path: exit_code(path) for path, code in codes.items() if code is None}
    failed = [os.path.relpath(path) for path, code in codes.items() if code != 0]
    if failed:
        show_failures(failed, len(logs))
        sys.exit(1)
