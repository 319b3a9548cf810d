"""What the job runners share: options, reporting failures, and handling signals."""

import os
import re
import signal
import sys

LAST_LINES = 10  # of the first failed job's log that are shown
PROGRAM = os.path.basename(sys.argv[0])


class Interrupted(Exception):
    """A signal asked the runner to stop; its number is the argument."""


def fail(message):
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    sys.exit(2)


def count(option, text, least):
    if not re.fullmatch(r"\d+", text) or int(text) < least:
        fail(f"{option} needs a whole number of at least {least}, not '{text}'")
    return int(text)


def seconds(text):
    """Seconds in a SLURM time: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not match:
        fail(f"--time needs minutes, H:M:S or D-H:M:S, not '{text}'")
    days, *clock = match.groups()
    first, second, third = (int(part or 0) for part in clock)
    if days is None and clock[2] is None:  # M or M:S
        return first * 60 + second
    return int(days or 0) * 86400 + first * 3600 + second * 60 + third


def parse(arguments, usage, known):
    """Return (options, name of the job variable or None, job numbers, log, command).

    options: {"--mem": "4G"}; only those in `known` are accepted, or any if that is None.
    """
    options, name, numbers = {}, None, [None]
    while arguments and (arguments[0].startswith("-") or re.match(r"[A-Za-z_]\w*=[^/]*$", arguments[0])):
        first = arguments.pop(0)
        array = re.fullmatch(r"([A-Za-z_]\w*)=(\d+)(?::(\d+))?", first)
        if first in ("-h", "--help"):
            print(usage, end="")
            sys.exit(0)
        if array:
            name, start, end = array[1], int(array[2]), int(array[3] or array[2])
            if not 1 <= start <= end:  # Grid Engine's rule, so that an array runs everywhere
                fail(f"{first}: the range must start at 1 or more and must not be empty")
            numbers = range(start, end + 1)
        elif not first.startswith("-"):
            fail(f"{first} is neither a range of jobs, such as JOB=1:10, nor a log")
        elif known is not None and first not in known:
            fail(f"unknown option {first}; known are {' '.join(known)}")
        elif not arguments:
            fail(f"{first} needs a value")
        else:
            options[first] = arguments.pop(0)
    if len(arguments) < 2:
        fail(f"a log and a command are required; see {PROGRAM} --help")
    log, *command = arguments
    if len(numbers) > 1 and name not in log:
        fail(f"{len(numbers)} jobs would share one log, {log}; put {name} into its name")
    return options, name, numbers, log, command


def show_failures(failed, total):
    """Name the failed jobs' logs in one line, then show the end of the first."""
    logs = " ".join(failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")
    what = "the job failed" if total == 1 else f"{len(failed)} of {total} jobs failed"
    try:
        with open(failed[0], "rb") as stream:
            stream.seek(max(0, os.path.getsize(failed[0]) - 20000))
            lines = stream.read().decode("utf-8", "replace").splitlines()[-LAST_LINES:]
    except OSError:  # it could not be written, or the job was cancelled before it started
        lines = ["no such log: the job did not start"]
    else:
        if not any(line.startswith("# Ended (code ") for line in lines):
            lines.append("(no exit code: the job was killed, for exceeding memory or time, or by hand)")
    print(f"{PROGRAM}: {what}: {logs}", *lines, sep="\n  ", file=sys.stderr)


def catch_signals():
    """Raise Interrupted at the first signal that asks the runner to stop."""
    asking = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number, frame):
        for other in asking:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    for number in asking:
        if signal.getsignal(number) != signal.SIG_IGN:  # ignored under nohup or a shell's &
            signal.signal(number, interrupt)
