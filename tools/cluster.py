"""What the cluster runners share: the site's options, the job script, and reading the logs.

A site's options are lines of a small file, like Kaldi's conf/queue.conf:

  command sbatch --partition=long --account=speech    # how jobs are submitted here
  option gpu=* --partition=gpu --gres=gpu:$0           # what --gpu N means here; $0 is N
  option gpu=0                                         # this value adds nothing
  default time=1-0                                     # if the command line does not set it
  setup module load cuda                               # a line of shell, run before the job's command

An `option` line replaces all of the runner's own lines for that option, `command` its command; the rest is
kept. A failing setup line ends the job. The file is --config FILE, or else conf/NAME in the current folder
(the recipe), or else tools/NAME.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time

from jobs import PROGRAM, Interrupted, catch_signals, count, fail, parse, seconds, show_failures

# Handled by the runner itself, the same at every site
ARRAY_OPTIONS = ("--max-jobs-run", "--config")
LAG_SECONDS = 5  # until the end of a log written on another machine is visible here


class Site:
    """The settings from a site's file, or from the runner's own lines."""

    def __init__(self, lines, place):
        self.command, self.options, self.defaults, self.setup = [], {}, {}, []
        for number, line in enumerate(lines, 1):
            word, _, rest = line.strip().partition(" ")
            match = re.fullmatch(r"(\w+)=(\S+)\s*(.*)", rest.strip())
            try:
                if not word or word.startswith("#"):
                    continue
                if word == "setup":
                    self.setup.append(rest)
                elif word == "command" and rest:
                    self.command = shlex.split(rest, comments=True)
                elif word == "option" and match:
                    arguments = shlex.split(match[3], comments=True)
                    self.options.setdefault(match[1], {})[match[2]] = arguments
                elif word == "default" and match:
                    self.defaults[match[1]] = match[2]
                else:
                    raise ValueError("not a command, option, default or setup line, as --help shows them")
            except ValueError as error:
                fail(f"{place}:{number}: '{line.strip()}': {error}")

    def update(self, other):
        """Override these settings by those of another file."""
        self.command = other.command or self.command
        self.options |= other.options
        self.defaults |= other.defaults
        self.setup += other.setup

    def arguments(self, values):
        """The scheduler's arguments for options such as {"mem": "4G"}."""
        result = []
        for name, value in {**self.defaults, **values}.items():
            if name not in self.options:
                known = [f"--{option.replace('_', '-')}" for option in self.options]
                fail(
                    f"unknown option --{name.replace('_', '-')}; known are {' '.join([*known, *ARRAY_OPTIONS])}; "
                    f"put the scheduler's own options into the site's file, as `command {self.command[0]} ...`"
                )
            for_values = self.options[name]
            if value not in for_values and "*" not in for_values:
                fail(f"--{name.replace('_', '-')} {value}: this site only has {' '.join(for_values)}")
            words = for_values.get(value, for_values.get("*"))
            result += [word.replace("$0", clock(value) if name == "time" else value) for word in words]
        return result


def clock(time_limit):
    """Any value of --time as H:MM:SS, which both schedulers understand."""
    minutes, rest = divmod(seconds(time_limit), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def read_site(own_lines, path, name):
    """The settings from the runner's own lines and the site's file."""
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
    """Split a text at each `name`, where the job's number goes."""
    return text.split(name) if name else [text]


def quote(pieces):
    """A shell word: the pieces, quoted, with the job's number between them."""
    return '"$job"'.join(shlex.quote(piece) if piece else "" for piece in pieces) or "''"


def script(setup, job, job_id, name, log, command, num_threads, without_gpu):
    """The job script: the command between Kaldi's header and footer. job, job_id: shell variables with the
    job's number in the array and the scheduler's id. log: the pieces of the log's name around that number."""
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
        *([f"export PYTHONPATH={shlex.quote(path)}"] if path else []),  # a loaded module may set its own
        f"export OMP_NUM_THREADS={num_threads} MKL_NUM_THREADS={num_threads}",
        *(["export CUDA_VISIBLE_DEVICES="] if without_gpu else []),
        "trap : TERM  # a terminated job still writes the footer",
        f"printf '# %s\\n' {quote(split(head, name))} \"Started at $(LC_ALL=C date) on $(hostname), job {job_id}\"",
        'echo "#"',
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
    """The exit code at the end of a job's log; None if there is none."""
    try:
        os.listdir(os.path.dirname(log))  # makes a network file system refresh
        with open(log, "rb") as stream:
            stream.seek(max(0, os.path.getsize(log) - 20000))
            codes = re.findall(rb"^# Ended \(code (\d+)\)", stream.read(), re.MULTILINE)
    except FileNotFoundError:
        return None
    return int(codes[-1]) if codes else None


def read(terminal):
    """The next output on a terminal; b"" at the end."""
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux reports that the other side is closed
        return b""


def end(process, terminal, output, cancel):
    """Cancel the submitted job and stop the command that waits for it; return what happened."""
    if b"\n" not in output:  # still submitting: find out whether it did
        process.terminate()
        while more := read(terminal):
            output += more
    job = re.match(rb"\d+", output)
    what = "nothing was submitted"
    if job:
        name = job[0].decode()
        done = subprocess.run([*cancel, name], capture_output=True, text=True, check=False)
        what = f"job {name} was cancelled"
        if done.returncode:
            what = f"job {name} could not be cancelled: {done.stderr.strip() or done.stdout.strip()}"
    process.kill()
    process.wait()
    return what


def main(usage, own_lines, config, to_arguments, task, job_id, cancel):
    """Run the jobs of the command line through a scheduler; exit as a job runner does.

    own_lines: the default settings, which a site's file may replace. config: the name of that file.
    to_arguments(numbers, at_once, title, log): the scheduler's arguments for the array (numbers [None]: no
    array) and for the log, given as the pieces around the job's number.
    task, job_id: the environment variables with a job's number in the array, and with the job's id.
    cancel: the command that cancels a job, to which its id is appended.
    """
    options, name, numbers, log, command = parse(sys.argv[1:], usage, None)
    values = {option[2:].replace("-", "_"): value for option, value in options.items()}
    site = read_site(own_lines, values.pop("config", None), config)
    at_once = count("--max-jobs-run", values.pop("max_jobs_run", str(len(numbers))), 1)
    num_threads = count("--num-threads", values.setdefault("num_threads", "1"), 1)
    count("--gpu", values.get("gpu", "0"), 0)
    arguments = site.arguments(values)

    # `name` stands for the job's number in the log's name, but not in the path of the current folder.
    log = split(log, name)
    stem = os.path.basename("".join(log)).removesuffix(".log")
    log[0] = os.path.join(os.getcwd(), log[0])
    logs = [str(number).join(log) for number in numbers]
    for path in logs:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.exists(path):  # from an earlier call; its last line would count
                os.remove(path)
        except OSError as error:
            fail(f"{path}: {error.strerror}")
    title = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_")
    arguments += to_arguments(numbers, at_once, title or "job", log)
    job = f"${task}" if numbers != [None] else ""
    text = script(site.setup, job, f"${job_id}", name, log, command, num_threads, values.get("gpu") == "0")

    catch_signals()
    terminal, other_side = os.openpty()  # on a terminal qsub prints the job's id at once, not at its end
    try:
        process = subprocess.Popen(
            [*site.command, *arguments], stdin=subprocess.PIPE, stdout=other_side, stderr=sys.stderr
        )
    except OSError as error:
        fail(f"{site.command[0]}: {error.strerror}; is this a machine of the cluster?")
    os.close(other_side)
    output = b""
    try:
        with contextlib.suppress(BrokenPipeError):  # it rejected its options, and says so
            process.stdin.write(text)
            process.stdin.close()
        while more := read(terminal):
            if b"\n" in more and b"\n" not in output and (job := re.match(rb"\d+", output + more)):
                print(f"{PROGRAM}: submitted job {job[0].decode()}", flush=True)
            output += more
        process.wait()
    except Interrupted as interruption:
        print(f"{PROGRAM}: stopped; {end(process, terminal, output, cancel)}", file=sys.stderr)
        sys.exit(128 + interruption.args[0])
    if not output and process.returncode:  # it has printed the reason itself
        fail(f"{site.command[0]} did not accept the jobs")

    patience = time.monotonic() + LAG_SECONDS
    codes = {path: exit_code(path) for path in logs}
    while None in codes.values() and time.monotonic() < patience:
        time.sleep(0.5)
        codes |= {path: exit_code(path) for path, code in codes.items() if code is None}
    failed = [os.path.relpath(path) for path, code in codes.items() if code != 0]
    if failed:
        show_failures(failed, len(logs))
        sys.exit(1)
