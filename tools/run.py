#!/usr/bin/env python3
"""Run a command, or an array of them, on this machine, with a log each (the contract of Kaldi's run.pl).

usage: run.py [options] [JOB=1:N] LOG COMMAND [ARGUMENT...]

  run.py exp/log/train.log python -m ser.train --seed 1
  run.py --max-jobs-run 4 JOB=1:20 exp/log/dump.JOB.log python -m ser.dump data/split20/JOB

JOB (or any other name before =1:N that occurs in no path) is replaced by 1, 2, ... N in the log's name and
in the arguments; JOB=3 runs job 3 alone. The command is run without a shell, and its output goes into the
log. If a job fails, the others go on, and run.py exits with status 1.

options:
  --max-jobs-run N  at most N jobs at a time (default: the cores / --num-threads)
  --num-threads N   OMP_NUM_THREADS and MKL_NUM_THREADS of each job (default: 1)
  --gpu N           0 hides the GPUs; with more, each running job gets N GPUs of its own, if there
                    are any (default: a job sees what run.py sees)
  --time T          stop a job that runs longer: minutes, H:M:S or D-H:M:S, as in SLURM
  --mem M           accepted but not enforced: for the cluster runners
"""

import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

from jobs import Interrupted, catch_signals, count, parse, seconds, show_failures

OPTIONS = ("--max-jobs-run", "--num-threads", "--gpu", "--time", "--mem")
GRACE_SECONDS = 5  # between SIGTERM and SIGKILL


def list_gpus():
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        try:
            query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
            visible = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return []
    return [gpu for gpu in re.split(r"[,\s]+", visible) if gpu not in ("", "-1")]


class Runner:
    """Starts jobs from several threads, and can stop those that are running."""

    def __init__(self, num_threads, limit, gpu_shares):
        self.num_threads = num_threads
        self.limit = limit  # seconds per job, or None
        self.free_gpus = queue.SimpleQueue()
        for share in gpu_shares:
            self.free_gpus.put(share)
        self.has_gpus = bool(gpu_shares)
        self.lock = threading.Lock()
        self.stopped = False
        self.running = {}  # process: its log's name

    def run(self, log, command):
        """Run one job to its end; return whether it succeeded."""
        gpus = self.free_gpus.get() if self.has_gpus else None
        try:
            return self.write_log(log, command, gpus) == 0
        except OSError as error:  # from writing the log
            print(f"run.py: {log}: {error.strerror}", file=sys.stderr)
            return False
        finally:
            if self.has_gpus:
                self.free_gpus.put(gpus)

    def write_log(self, log, command, gpus):
        os.makedirs(os.path.dirname(log) or ".", exist_ok=True)
        with open(log, "w+b", buffering=0) as stream:  # unbuffered: the command writes to it too
            began = time.time()
            note(stream, shlex.join(command))
            note(stream, f"Started at {date(began)}")
            note(stream, "")
            code = self.execute(command, gpus, stream)
            ended = time.time()
            elapsed = round(ended - began)
            note(stream, f"Accounting: time={elapsed} threads={self.num_threads}")
            note(stream, f"Ended (code {code}) at {date(ended)}, elapsed time {elapsed} seconds")
        return code

    def execute(self, command, gpus, stream):
        """Run the command and return its exit code, as a shell reports it."""
        threads = str(self.num_threads)
        environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpus
        with self.lock:
            if self.stopped:
                note(stream, "run.py was stopped before this job started")
                return 143
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,  # a process group that can be stopped as a whole
                )
            except OSError as error:
                reason = f"{error.strerror}; is it on PATH and executable?"
                note(stream, f"run.py: cannot start {command[0]}: {reason}")
                return 127 if isinstance(error, FileNotFoundError) else 126
            self.running[process] = stream.name
        try:
            code = process.wait(self.limit)
            overdue = False
        except subprocess.TimeoutExpired:
            end([process])
            code = process.wait()
            overdue = True
        with self.lock:
            self.running.pop(process)
        if overdue:
            note(stream, f"run.py: stopped after the {self.limit} seconds of --time")
        if code < 0:
            note(stream, f"run.py: killed by {signal.Signals(-code).name}")
            return 128 - code
        return code

    def stop(self):
        """Stop the running jobs and start no more; return the logs of those that were running."""
        with self.lock:
            self.stopped = True
            running = dict(self.running)
        end(running)
        return sorted(running.values())


def end(processes):
    """Terminate the process groups, wait a little, and kill what is left."""
    left = list(processes)
    patience = time.monotonic() + GRACE_SECONDS
    for process in left:
        send(process, signal.SIGTERM)
    while left and time.monotonic() < patience:
        time.sleep(0.02)
        left = [process for process in left if send(process, 0)]
    for process in left:
        send(process, signal.SIGKILL)


def send(process, number):
    """Signal a whole process group; False if it is gone."""
    process.poll()  # otherwise a zombie leader would still count
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def note(stream, text):
    """Write a comment into a log, on a line of its own."""
    size = os.fstat(stream.fileno()).st_size
    if size and os.pread(stream.fileno(), 1, size - 1) != b"\n":  # the command did not end its line
        stream.write(b"\n")
    stream.write(os.fsencode(f"# {text}".rstrip().replace("\n", "\n# ") + "\n"))


def date(moment):
    return time.strftime("%a %b %d %H:%M:%S %Z %Y", time.localtime(moment))


def share_gpus(wanted, at_once):
    """CUDA_VISIBLE_DEVICES for each of the jobs that run at the same time; [] leaves it unchanged."""
    if wanted == 0:
        return [""] * at_once
    gpus = list_gpus()
    if len(gpus) < wanted:
        print(f"run.py: --gpu {wanted}, but {len(gpus)} found; continuing", file=sys.stderr)
        wanted = len(gpus)
    whole = len(gpus) // wanted if wanted else 0
    return [",".join(gpus[i * wanted : (i + 1) * wanted]) for i in range(min(whole, at_once))]


def main():
    options, name, numbers, log, command = parse(sys.argv[1:], __doc__, OPTIONS)
    num_threads = count("--num-threads", options.get("--num-threads", "1"), 1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    at_once = count("--max-jobs-run", options.get("--max-jobs-run") or str(max(1, cores // num_threads)), 1)
    at_once = min(at_once, len(numbers))
    limit = seconds(options["--time"]) if "--time" in options else None
    shares = share_gpus(count("--gpu", options["--gpu"], 0), at_once) if "--gpu" in options else []

    def replace(text, number):
        return text if number is None else text.replace(name, str(number))

    jobs = [(replace(log, n), [replace(argument, n) for argument in command]) for n in numbers]
    runner = Runner(num_threads, limit, shares)
    pool = ThreadPoolExecutor(len(shares) or at_once)
    catch_signals()
    try:
        results = [pool.submit(runner.run, *job) for job in jobs]
        while wait(results, timeout=1).not_done:
            pass  # a signal just before a wait without timeout would go unnoticed
        failed = [job[0] for job, result in zip(jobs, results, strict=True) if not result.result()]
        if failed:
            show_failures(failed, len(jobs))
            sys.exit(1)
    except Interrupted as interruption:
        logs = runner.stop()
        pool.shutdown(cancel_futures=True)
        number = interruption.args[0]
        what = f"killed {len(logs)} running job(s): {' '.join(logs)}" if logs else "no job was running"
        print(f"run.py: {signal.Signals(number).name}: {what}", file=sys.stderr)
        sys.exit(128 + number)


main()
