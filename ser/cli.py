"""What every command shares: common options, and errors as one line that says what is wrong and what to do."""

import argparse
import errno
import signal
import sys
from collections.abc import Callable

ALLOW_PIPES = "--allow-pipes"


class UserError(Exception):
    """An error that the user can fix; the message names file, place and remedy in one line."""


def add_device(parser: argparse.ArgumentParser) -> None:
    """Give a command the option --device."""
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        help="auto: a GPU if there is one (default)",
    )


def add_allow_pipes(parser: argparse.ArgumentParser) -> None:
    """Give a command the option --allow-pipes."""
    parser.add_argument(
        ALLOW_PIPES,
        action="store_true",
        help="run the shell commands in wav.scp, such as `sox a.mp3 -t wav - |`",
    )


def explain(error: BaseException) -> str | None:
    """The line to show for an error that the user can fix; None for a bug of ours."""
    line = None
    if isinstance(error, UserError):
        line = str(error)
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f"{error.filename}: " if error.filename else ""
        line = f"{place}{error.strerror}; free some space and run the same command again"
    elif isinstance(error, OSError) and error.filename is not None:
        refused = error.errno in (errno.EROFS, errno.EACCES)
        line = f"{error.filename}: {error.strerror}{'; check permissions or use another location' * refused}"
    return line and plain(line)


def plain(text: str) -> str:
    """Escape line breaks and terminal control characters, which file names may contain."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def run(main: Callable[[], None]) -> None:
    """Call `main`; show an error that the user can fix as one line on standard error, with exit status 1."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # clean up, as after Ctrl-C
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `... | head`
        sys.exit(141)
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        sys.exit(f"error: {line}")
