"""tools/slurm.py and tools/gridengine.py: on a real SLURM and a real Grid Engine where they can be had,
and on stand-ins for sbatch and qsub, which show the options that a real one would be given."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UP = ROOT.parent / "shared/slurm/up.sh"
RUNNERS = ("slurm", "gridengine")
PRINT = [sys.executable, "-c", "import sys; print(repr(sys.argv[1:]))"]
HARD = [
    "a  b",
    "'",
    '"',
    "$HOME",
    "`id`",
    "$(id)",
    "*",
    "été ∂",
    "two\nlines",
    "",
    "\\n",
    "|",
    ">x",
    "a;b",
    "%a",
    "#$ -N x",
    "!",
]

# Keeps its arguments, and runs the script for each number of the array. STATUS: what it ends with.
STAND_IN = """\
#!{python}
import os, re, subprocess, sys
arguments = sys.argv[1:]
open("called", "w").write("\\n".join(arguments))
open("script", "wb").write(script := sys.stdin.buffer.read())
if os.environ.get("REFUSE"):
    sys.exit("no such partition")
print(17, flush=True)
text = " ".join(arguments)
numbers = re.search(r"(?:--array=|-t )(\\d+)-(\\d+)", text)
for number in range(int(numbers[1]), int(numbers[2]) + 1) if numbers else [1]:
    log = re.search(r"--output=(.*?)(?= --open|$)|-o :(.*)", text)
    name = (log[1] or log[2]).replace("%a", str(number)).replace("%%", "%").replace("$TASK_ID", str(number))
    with open(name, "a") as stream:
        task = dict(os.environ, **{{"SLURM_ARRAY_TASK_ID": str(number), "SGE_TASK_ID": str(number)}})
        subprocess.run(["bash"], input=script, stdout=stream, stderr=stream, env=task)
sys.exit(int(os.environ.get("STATUS", "0")))
"""


def call(runner, *arguments, **variables):
    command = [ROOT / f"tools/{runner}.py", *arguments]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=120)


def run(runner, *arguments):
    result = call(runner, *arguments)
    assert result.returncode == 0, result.stderr
    return result


def output(log):
    return [line for line in Path(log).read_text().splitlines() if not line.startswith("#")]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Stand-ins for sbatch and qsub; the test stands in an empty folder."""
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "qsub"):
        (tmp_path / "bin" / name).write_text(STAND_IN.format(python=sys.executable))
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def handed(*arguments, runner="slurm"):
    """What the scheduler's command is given."""
    run(runner, *arguments)
    return Path("called").read_text().split("\n")


def test_what_slurm_is_given(stand_in):
    options = ["--mem", "4G", "--num-threads", "4", "--gpu", "1", "--max-jobs-run", "8", "--time", "1-2"]
    assert handed(*options, "JOB=1:20", "a/train.JOB.log", "true") == [
        "--mem=4G", "--cpus-per-task=4", "--gres=gpu:1", "--time=26:00:00",
        "--parsable", "--wait", "--array=1-20%8", "--job-name=train", f"--output={stand_in}/a/train.%a.log", "--open-mode=append",
    ]  # fmt: skip


def test_what_grid_engine_is_given(stand_in):
    options = ["--mem", "4G", "--num-threads", "4", "--gpu", "1", "--max-jobs-run", "8", "--time", "90:30"]
    assert handed(*options, "JOB=1:20", "a/train.JOB.log", "true", runner="gridengine") == [
        "-V", "-l", "mem_free=4G", "-pe", "smp", "4", "-l", "gpu=1", "-l", "h_rt=1:30:30",
        "-terse", "-sync", "y", "-t", "1-20", "-tc", "8", "-N", "j_train", "-cwd", "-S", "/bin/bash", "-C", "", "-j", "y",
        "-o", f":{stand_in}/a/train.$TASK_ID.log",
    ]  # fmt: skip


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_job_s_name_is_told(stand_in, runner):
    assert run(runner, "a.log", "true").stdout == f"{runner}.py: submitted job 17\n"


def test_without_options_and_array(stand_in):
    assert handed("100%.log", "true") == [
        "--cpus-per-task=1", "--parsable", "--wait", "--job-name=100", f"--output={stand_in}/100%%.log", "--open-mode=append",
    ]  # fmt: skip
    assert "-t" not in handed("a.log", "true", runner="gridengine")
    assert "-pe" not in Path("called").read_text().split("\n")


SITE = """
# of our cluster
command sbatch --partition=long --comment='two words'  # the queue
option mem=* --mem-per-cpu=$0
option gpu=0 --exclude=gpu1   # keep them free
option gpu=* -p gpu --gres=gpu:a100:$0
option queue=* -p $0
default time=30
default gpu=0
setup true load cuda
setup export SITE="a  b"
"""


def test_a_site_has_its_own_options(stand_in):
    Path("site").write_text(SITE)
    common = ["--partition=long", "--comment=two words"]
    assert handed("--config", "site", "a.log", "true")[:5] == [
        *common,
        "--time=0:30:00",
        "--exclude=gpu1",
        "--cpus-per-task=1",
    ]
    given = handed("--config", "site", "--gpu", "2", "--queue", "q", "--mem", "1G", "--time", "5", "a.log", "true")
    assert given[2:10] == [
        "--time=0:05:00",
        "-p",
        "gpu",
        "--gres=gpu:a100:2",
        "-p",
        "q",
        "--mem-per-cpu=1G",
        "--cpus-per-task=1",
    ]
    lines = Path("script").read_text().split("\n")
    assert [line.split(" || ")[0] for line in lines[2:4]] == ["true load cuda", 'export SITE="a  b"']
    run("slurm", "--config", "site", "a.log", "sh", "-c", 'echo "$SITE"')
    assert output("a.log") == ["a  b"]
    Path("site").write_text("setup false load cuda\n")
    result = call("slurm", "--config", "site", "a.log", "touch", "done")
    assert result.returncode == 1 and "  # setup failed: false load cuda\n" in result.stderr
    assert not Path("done").exists()


def test_the_site_s_file_of_a_recipe_is_found(stand_in):
    Path("conf").mkdir()
    Path("conf/slurm.conf").write_text("command sbatch --partition=here\n")
    assert handed("a.log", "true")[0] == "--partition=here"
    assert handed("a.log", "true", runner="gridengine")[0] == "-V"  # it has its own


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("comand sbatch", "'comand sbatch': not a command, option, default or setup line"),
        ("option gpu --gres=gpu:1", "'option gpu --gres=gpu:1': not a command"),
        ("command", "'command': not a command"),
        ("command sbatch 'x", "No closing quotation"),
    ],
)
def test_a_fault_in_a_site_s_file(stand_in, line, what):
    Path("site").write_text(f"\n{line}\n")
    result = call("slurm", "--config", "site", "a.log", "true")
    assert result.returncode == 2
    assert result.stderr.startswith("slurm.py: site:2: ") and what in result.stderr and result.stderr.count("\n") == 1
    assert not Path("called").exists()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--config", "none", "a.log", "true"], "none: No such file or directory"),
        (
            ["--wall", "3", "a.log", "true"],
            "unknown option --wall; known are --mem --num-threads --gpu --time --max-jobs-run --config; put the scheduler's own",
        ),
        (["--time", "soon", "a.log", "true"], "--time needs minutes"),
        (["--num-threads", "0", "a.log", "true"], "--num-threads needs a whole number of at least 1, not '0'"),
        (["--max-jobs-run", "0", "a.log", "true"], "--max-jobs-run needs a whole number of at least 1, not '0'"),
        (["JOB=1:2", "a.log", "true"], "2 jobs would share one log"),
        (["JOB=0:2", "a.JOB.log", "true"], "the range must start at 1"),
        (["a.log"], "a log and a command are required; see slurm.py --help"),
    ],
)
def test_a_call_that_is_wrong(stand_in, arguments, what):
    result = call("slurm", *arguments)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert what in result.stderr and not Path("called").exists()


def test_a_scheduler_that_is_not_there(tmp_path):
    result = call("slurm", tmp_path / "a.log", "true", PATH="/usr/bin/nowhere:" + os.path.dirname(sys.executable))
    assert result.returncode == 2
    assert result.stderr == "slurm.py: sbatch: No such file or directory; is this a machine of the cluster?\n"


def test_a_scheduler_that_refuses(stand_in):
    result = call("slurm", "a.log", "true", REFUSE="1")
    assert (result.returncode, result.stderr) == (2, "no such partition\nslurm.py: sbatch did not accept the jobs\n")


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_log_that_cannot_be_written(stand_in, runner):
    Path("file").touch()
    result = call(runner, "file/a.log", "true")
    assert (result.returncode, result.stderr) == (2, f"{runner}.py: {stand_in}/file/a.log: File exists\n")
    assert not Path("called").exists()


def test_a_scheduler_that_does_not_even_read(stand_in):
    """As sbatch, where it does not know an option: the pipe to it breaks."""
    Path("bin/sbatch").write_text("#!/bin/sh\nexec 0<&-\nsleep 0.2\necho 'unrecognized option' >&2; exit 1\n")
    result = call("slurm", "a.log", "echo", "x" * 100_000)
    assert (result.returncode, result.stderr) == (2, "unrecognized option\nslurm.py: sbatch did not accept the jobs\n")


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_logs_decide_which_jobs_failed(stand_in, runner):
    """Not the scheduler's word: an array that is cancelled before it starts may end well for it."""
    result = call(runner, "JOB=1:3", "a.JOB.log", "sh", "-c", "[ JOB = 2 ]", STATUS="0")
    assert result.returncode == 1
    assert result.stderr.startswith(f"{runner}.py: 2 of 3 jobs failed: a.1.log a.3.log\n")


def test_a_log_of_an_earlier_call_does_not_count(stand_in, monkeypatch):
    run("slurm", "a.log", "true")
    Path("bin/sbatch").write_text("#!/bin/sh\necho 17\n")
    result = call("slurm", "a.log", "true")
    assert result.returncode == 1
    assert result.stderr == "slurm.py: the job failed: a.log\n  no such log: the job did not start\n"


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_log_is_that_of_run_py(stand_in, runner):
    """But for the machine's name, which a cluster's log needs."""
    command = ["--num-threads", "2", "JOB=2:3", "a.JOB.log", "printf", "%s\n", *HARD, "JOB x", "end"]
    logs = []
    for name in (runner, "run"):
        run(name, *command)
        logs.append(
            re.sub(r"\w{3} \w{3} [ \d]\d \S+ \S+ \d{4}|elapsed time \d+|time=\d+", "", Path("a.3.log").read_text())
        )
    assert re.sub(r"(?<=# Started at ) on \S+ job \d*", "", logs[0]).replace("at  \n", "at \n") == logs[1]


@pytest.mark.parametrize("runner", RUNNERS)
def test_threads_and_gpus(stand_in, runner):
    run(
        runner,
        "--num-threads",
        "3",
        "--gpu",
        "0",
        "a.log",
        "sh",
        "-c",
        "echo $OMP_NUM_THREADS $MKL_NUM_THREADS [$CUDA_VISIBLE_DEVICES]",
    )
    assert output("a.log") == ["3 3 []"]


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_name_in_the_folder_s_name_stays(stand_in, runner):
    folder = stand_in / "JOBS/100%"
    folder.mkdir(parents=True)
    os.chdir(folder)
    run(runner, "JOB=1:2", "../log/x.JOB.log", "echo", "JOB")
    assert output("../log/x.2.log") == ["2"]
    assert sorted(path.name for path in (stand_in / "JOBS/log").iterdir()) == ["x.1.log", "x.2.log"]
    assert not list(stand_in.glob("[0-9]*"))  # no 1S, no 2S


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_module_does_not_come_before_the_caller_s_packages(stand_in, runner, monkeypatch):
    Path("site").write_text("setup export PYTHONPATH=/module:$PYTHONPATH\n")
    for value, seen in (("/a b", "/a b"), (None, "/module:")):
        monkeypatch.delenv("PYTHONPATH", raising=False)
        if value:
            monkeypatch.setenv("PYTHONPATH", value)
        run(runner, "--config", "site", "a.log", "sh", "-c", 'echo "$PYTHONPATH"')
        assert output("a.log") == [seen]


# On real schedulers


def is_up(*command):
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.fixture(scope="session")
def slurm():
    if not shutil.which("sbatch"):
        pytest.skip("no SLURM here: sbatch is not installed (Debian: slurm-wlm and munge)")
    if not is_up("sinfo", "-h"):
        if not UP.exists() or os.geteuid():
            pytest.skip(f"no SLURM is up here, and {UP} cannot start one")
        up = subprocess.run([UP], capture_output=True, text=True)
        if up.returncode:
            pytest.skip(f"{UP} could not start SLURM: {up.stderr.strip()}")
        os.environ["SLURM_CONF"] = up.stdout.strip().partition("=")[2]


@pytest.fixture(scope="session")
def gridengine():
    if not is_up("qhost"):
        pytest.skip("no Grid Engine is up here; tests/tools/gridengine_up.sh starts Debian's")


@pytest.fixture(params=RUNNERS)
def runner(request, tmp_path, monkeypatch):
    """The name of a runner whose scheduler is up. The test stands in an empty folder."""
    request.getfixturevalue(request.param)
    monkeypatch.chdir(tmp_path)
    return request.param


def test_real_arguments_arrive_unchanged(runner):
    log = "two words/été%a.JOB.log"
    run(runner, "JOB=1:2", log, *PRINT, *HARD, "JOB=JOB")
    assert output(log.replace("JOB", "2")) == [repr([*HARD, "2=2"])]
    head = Path(log.replace("JOB", "1")).read_text().split("\n# Started at")[0]
    assert shlex.split(head.replace("\n# ", "\n")[2:]) == [*PRINT, *HARD, "1=1"]


def test_real_jobs_that_fail_and_are_killed(runner):
    """1 goes well, 2 fails, 3 is killed from within, as for its memory, 4 does not end its last line."""
    script = "case $0 in 2) echo wrong; exit 3;; 3) kill -9 $PPID; sleep 60;; 4) printf half; exit 1;; esac"
    result = call(runner, "JOB=1:4", "a.JOB.log", "bash", "-c", script, "JOB")
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    place = lines.index(f"{runner}.py: 3 of 4 jobs failed: a.2.log a.3.log a.4.log")
    assert "  wrong" in lines[place:] and any(line.startswith("  # Ended (code 3) at ") for line in lines[place:])
    assert "# Ended (code" not in Path("a.3.log").read_text()
    assert "\nhalf\n# Accounting" in Path("a.4.log").read_text()


def test_real_job_cancelled_from_outside(runner):
    command = [ROOT / f"tools/{runner}.py", "JOB=1:2", "a.JOB.log", "bash", "-c", "[ JOB = 1 ] || sleep 60"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    started = time.monotonic()
    while not Path("a.2.log").exists() or "Started" not in Path("a.2.log").read_text():
        assert time.monotonic() - started < 30
        time.sleep(0.2)
    if runner == "slurm":
        jobs = subprocess.run(["squeue", "-h", "-o", "%i", "-n", "a"], capture_output=True, text=True).stdout.split()
        subprocess.run(["scancel", *jobs], check=True)
    else:
        subprocess.run(["qdel", "j_a", "-t", "2"], check=True, capture_output=True)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert f"{runner}.py: 1 of 2 jobs failed: a.2.log\n" in error
    assert ("CANCELLED" if runner == "slurm" else "(no exit code: the job was killed") in error
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_real_jobs_end_with_the_runner(runner, number):
    """Those that run, and those that wait."""
    own = signal.signal(number, signal.SIG_DFL)  # a shell's & lets what it starts ignore SIGINT
    command = [
        ROOT / f"tools/{runner}.py",
        "--max-jobs-run",
        "2",
        "JOB=1:4",
        "a.JOB.log",
        "bash",
        "-c",
        "echo here; sleep 60; touch too_late",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(number, own)
    started = time.monotonic()
    while not all(Path(f"a.{job}.log").exists() and "here" in Path(f"a.{job}.log").read_text() for job in (1, 2)):
        assert time.monotonic() - started < 30
        time.sleep(0.2)
    process.send_signal(number)
    assert "was cancelled" in process.communicate(timeout=30)[1]
    assert process.returncode == 128 + number
    started = time.monotonic()
    query = ["squeue", "-h", "-n", "a"] if runner == "slurm" else ["qstat"]
    while subprocess.run(query, capture_output=True, text=True).stdout:
        assert time.monotonic() - started < 30
        time.sleep(0.2)
    assert not Path("too_late").exists()


def test_real_job_over_its_time(runner):
    """SLURM counts in minutes, and looks now and then: this takes more than one."""
    if not os.environ.get("SER_SLOW_TESTS"):
        pytest.skip("takes a minute and a half; SER_SLOW_TESTS=1 runs it")
    result = call(runner, "--time", "0:01", "JOB=1:2", "a.JOB.log", "bash", "-c", "[ JOB = 1 ] || sleep 300")
    assert result.returncode == 1
    assert f"{runner}.py: 1 of 2 jobs failed: a.2.log\n" in result.stderr
    assert runner != "slurm" or "DUE TO TIME LIMIT" in result.stderr


def test_real_jobs_side_by_side(runner):
    script = "date +%s.%N; sleep 1; date +%s.%N"
    run(runner, "--max-jobs-run", "1", "JOB=1:2", "a.JOB.log", "bash", "-c", script)
    times = sorted([float(time) for time in output(f"a.{job}.log")] for job in (1, 2))
    assert times[0][1] <= times[1][0]
