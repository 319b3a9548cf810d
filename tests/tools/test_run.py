"""tools/run.py: the job runner for this machine, by the contract of Kaldi's run.pl."""

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / "tools/run.py"
PRINT = [sys.executable, "-c", "import sys; print(repr(sys.argv[1:]))"]


def call(folder, *arguments, **variables):
    return subprocess.run([RUN, *arguments], cwd=folder, env=os.environ | variables, capture_output=True, text=True)


def run(folder, *arguments, **variables):
    result = call(folder, *arguments, **variables)
    assert (result.returncode, result.stderr) == (0, "")


def output(log):
    """What the command wrote: the log without run.py's own lines."""
    return [line for line in log.read_text().splitlines() if not line.startswith("#")]


def test_the_log_has_kaldis_head_and_foot(tmp_path):
    run(tmp_path, "--num-threads", "2", "new/folder/a.log", "sh", "-c", "echo out; sleep 1; echo err >&2")
    log = (tmp_path / "new/folder/a.log").read_text()
    date = r"\w{3} \w{3} \d\d \d\d:\d\d:\d\d \S+ \d{4}"
    assert re.fullmatch(
        rf"# sh -c 'echo out; sleep 1; echo err >&2'\n# Started at {date}\n#\nout\nerr\n"
        rf"# Accounting: time=([1-9]) threads=2\n# Ended \(code 0\) at {date}, elapsed time \1 seconds\n",
        log,
    )


def test_the_foot_begins_a_line(tmp_path):
    run(tmp_path, "a.log", "printf", "no end")
    assert "\nno end\n# Accounting: " in (tmp_path / "a.log").read_text()


@pytest.mark.parametrize("array, name", [("JOB=2:4", "JOB"), ("n=2:4", "n"), ("my_job1=2:4", "my_job1")])
def test_the_name_is_replaced_in_log_and_arguments(tmp_path, array, name):
    run(tmp_path, array, f"{name}/a.{name}.log", "echo", name, f"data/{name}/wav.{name}.scp")
    assert sorted(p.name for p in tmp_path.glob("*/*")) == ["a.2.log", "a.3.log", "a.4.log"]
    assert output(tmp_path / "3/a.3.log") == ["3 data/3/wav.3.scp"]


def test_one_number_is_one_job(tmp_path):
    run(tmp_path, "JOB=3", "a.log", "echo", "JOB")
    assert output(tmp_path / "a.log") == ["3"]


def test_options_may_follow_the_array(tmp_path):
    command = ["sh", "-c", "echo $OMP_NUM_THREADS"]
    run(tmp_path, "JOB=1:2", "--mem", "4G", "--num-threads", "3", "a.JOB.log", *command)
    assert output(tmp_path / "a.2.log") == ["3"]


def test_without_an_array_nothing_is_replaced(tmp_path):
    run(tmp_path, "JOB.log", "echo", "JOB", "--help", "--mem")
    assert output(tmp_path / "JOB.log") == ["JOB --help --mem"]


def test_arguments_arrive_unchanged(tmp_path):
    arguments = ["a  b", "'", '"', "$HOME", "`id`", "$(id)", "*", "été ∂", "two\nlines", "", "\\n"]
    arguments += ["|", ">x", "a;b"]
    run(tmp_path, "a.log", *PRINT, *arguments)
    assert output(tmp_path / "a.log") == [repr(arguments)]
    head = (tmp_path / "a.log").read_text().split("\n# Started at")[0]
    assert shlex.split(head.replace("\n# ", "\n")[2:]) == [*PRINT, *arguments]


def test_bytes_that_are_not_utf8_arrive_unchanged(tmp_path):
    subprocess.run([RUN, b"a\xff.log", b"echo", b"\xff\xfe"], cwd=tmp_path, check=True)
    assert b"\n\xff\xfe\n" in (tmp_path / os.fsdecode(b"a\xff.log")).read_bytes()


def test_threads_are_given_to_the_libraries(tmp_path):
    command = ["sh", "-c", "echo $OMP_NUM_THREADS $MKL_NUM_THREADS"]
    run(tmp_path, "a.log", *command, OMP_NUM_THREADS="7")
    run(tmp_path, "--num-threads", "3", "b.log", *command)
    assert output(tmp_path / "a.log") + output(tmp_path / "b.log") == ["1 1", "3 3"]


@pytest.mark.parametrize("options, bound", [(["--max-jobs-run", "2"], 2), (["--num-threads", "10000"], 1)])
def test_no_more_jobs_run_side_by_side_than_allowed(tmp_path, options, bound):
    run(tmp_path, *options, "JOB=1:5", "JOB.log", "sh", "-c", "date +%s.%N; sleep 0.3; date +%s.%N")
    spans = [tuple(map(float, output(tmp_path / f"{job}.log"))) for job in range(1, 6)]
    assert max(sum(start <= moment < end for start, end in spans) for moment, _ in spans) == bound


def test_a_failing_job_does_not_stop_the_others(tmp_path):
    command = ["sh", "-c", "seq 100; test JOB = 6 || exit JOB"]
    result = call(tmp_path, "--max-jobs-run", "1", "JOB=1:6", "a.JOB.log", *command)
    assert result.returncode == 1
    first, *last = result.stderr.splitlines()
    assert first == "run.py: 5 of 6 jobs failed: a.1.log a.2.log a.3.log and 2 more"
    assert len(last) == 10
    assert last == [f"  {line}" for line in (tmp_path / "a.1.log").read_text().splitlines()[-10:]]
    assert "# Ended (code 3) at " in (tmp_path / "a.3.log").read_text()
    assert "# Ended (code 0) at " in (tmp_path / "a.6.log").read_text()


def test_a_killed_job_has_a_shells_exit_code(tmp_path):
    assert "run.py: the job failed: a.log" in call(tmp_path, "a.log", "sh", "-c", "kill -9 $$").stderr
    log = (tmp_path / "a.log").read_text()
    assert "# run.py: killed by SIGKILL\n" in log and "# Ended (code 137) at " in log


def test_a_command_that_is_not_there_is_a_failed_job(tmp_path):
    result = call(tmp_path, "a.log", "no-such-command", "x")
    assert result.returncode == 1
    assert "cannot start no-such-command: No such file or directory" in result.stderr
    assert "# Ended (code 127) at " in (tmp_path / "a.log").read_text()


def test_a_log_that_cannot_be_written_is_a_failed_job(tmp_path):
    (tmp_path / "file").touch()
    result = call(tmp_path, "file/a.log", "true")
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "run.py: file/a.log: File exists",
        "run.py: the job failed: file/a.log",
        "  no such log: the job did not start",
    ]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["JOB=1:2", "a.log", "true"], "2 jobs would share one log, a.log; put JOB into its name"),
        (["--memory", "4G", "a.log", "true"], "unknown option --memory"),
        (["--mem"], "--mem needs a value"),
        (["a.log"], "a log and a command are required"),
        ([], "a log and a command are required"),
        (["JOB=0:2", "a.JOB.log", "true"], "JOB=0:2: the range"),
        (["JOB=3:2", "a.JOB.log", "true"], "JOB=3:2: the range"),
        (["JOB=1:x", "a.JOB.log", "true"], "JOB=1:x is neither"),
        (["--max-jobs-run", "0", "a.log", "true"], "--max-jobs-run needs a whole number of at least 1, not '0'"),
        (["--gpu", "one", "a.log", "true"], "--gpu needs a whole number of at least 0, not 'one'"),
        (["--time", "soon", "a.log", "true"], "--time needs minutes"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(tmp_path, arguments, message):
    result = call(tmp_path, *arguments)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"run.py: {message}")
    assert result.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_help_answers_at_once(tmp_path):
    took = []
    for _ in range(3):  # the machine may be busy with other things
        began = time.monotonic()
        result = call(tmp_path, "--help")
        took.append(time.monotonic() - began)
        assert result.returncode == 0 and "--max-jobs-run N" in result.stdout
    assert min(took) < 0.5


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_jobs_with_all_their_children(tmp_path, number):
    script = "sleep 120 & echo $! >JOB.pid; echo $$ >>JOB.pid; wait"
    # A test run in the background may have handed down a signal as ignored.
    as_usual = (
        "import os, signal, sys\nsignal.signal(int(sys.argv[1]), signal.SIG_DFL)\nos.execv(sys.argv[2], sys.argv[2:])\n"
    )
    command = [sys.executable, "-c", as_usual, str(int(number))]
    command += [RUN, "--max-jobs-run", "2", "JOB=1:3", "a.JOB.log", "sh", "-c", script]
    pid_files = [tmp_path / "1.pid", tmp_path / "2.pid"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as runner:
        wait_for(lambda: all(file.exists() and len(file.read_text().split()) == 2 for file in pid_files))
        pids = [pid for file in pid_files for pid in file.read_text().split()]
        assert all(alive(pid) for pid in pids)
        runner.send_signal(number)
        _, message = runner.communicate(timeout=60)
    assert message == f"run.py: {number.name}: killed 2 running job(s): a.1.log a.2.log\n"
    assert runner.returncode == 128 + number
    assert not any(alive(pid) for pid in pids)
    assert "# Ended (code 143) at " in (tmp_path / "a.1.log").read_text()
    assert not (tmp_path / "3.pid").exists()


def test_a_job_that_takes_too_long_is_ended(tmp_path):
    result = call(tmp_path, "--time", "0:1", "a.log", "sleep", "60")
    assert result.returncode == 1
    assert "# run.py: stopped after the 1 seconds of --time\n" in (tmp_path / "a.log").read_text()


GPU_SCRIPT = ["sh", "-c", "date +%s.%N; sleep 0.2; date +%s.%N; echo gpu=$CUDA_VISIBLE_DEVICES"]


def test_running_jobs_have_gpus_of_their_own(tmp_path):
    run(
        tmp_path, "--gpu", "1", "--max-jobs-run", "4", "JOB=1:4", "JOB.log", *GPU_SCRIPT,
        CUDA_VISIBLE_DEVICES="5,GPU-a",
    )  # fmt: skip
    jobs = [output(tmp_path / f"{job}.log") for job in range(1, 5)]
    assert {gpu for _, _, gpu in jobs} == {"gpu=5", "gpu=GPU-a"}
    for (start, _, gpu), (other_start, other_end, other_gpu) in itertools.permutations(jobs, 2):
        if float(other_start) <= float(start) < float(other_end):
            assert gpu != other_gpu


def test_gpus_are_listed_by_nvidia_smi(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n3\\n4\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    path = f"{tmp_path}:{os.environ['PATH']}"
    run(tmp_path, "--gpu", "2", "--max-jobs-run", "9", "JOB=1:2", "JOB.log", *GPU_SCRIPT, PATH=path)
    assert {output(tmp_path / f"{job}.log")[-1] for job in (1, 2)} == {"gpu=0,1", "gpu=2,3"}


def test_gpus_can_be_hidden(tmp_path):
    run(tmp_path, "--gpu", "0", "a.log", *GPU_SCRIPT, CUDA_VISIBLE_DEVICES="0")
    assert output(tmp_path / "a.log")[-1] == "gpu="


def test_without_gpus_the_jobs_go_on(tmp_path):
    result = call(tmp_path, "--gpu", "1", "a.log", "echo", "done", CUDA_VISIBLE_DEVICES="")
    assert (result.returncode, result.stderr) == (0, "run.py: --gpu 1, but 0 found; continuing\n")
    assert output(tmp_path / "a.log") == ["done"]


def test_the_name_in_the_folder_s_name_stays(tmp_path):
    folder = tmp_path / "JOBS"
    folder.mkdir()
    run(folder, "JOB=1:2", "log/JOB.log", "echo", "JOB")
    assert output(folder / "log/2.log") == ["2"]
    assert [path.name for path in tmp_path.iterdir()] == ["JOBS"]
