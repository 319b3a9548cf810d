"""Files that appear whole or not at all, and work that one process does at a time."""

import errno
import fcntl
import glob
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ser.cli import UserError


class InWork(UserError):
    """Another process does the work already."""


@contextmanager
def whole(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a new file that takes the name `path` only when the block ends without an error.

    mode: "w" (UTF-8 text) or "wb". Folders on the way are made. A reader sees the old file or the
    new one, never a part, even where the machine loses its power. A killed writer leaves at most a
    hidden temporary file beside it, which the next writer of `path` removes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    handle, partial = _partial(path)
    try:
        encoding = None if "b" in mode else "utf-8"
        with _named(path), open(handle, mode, encoding=encoding) as stream:
            yield stream
            stream.flush()
            os.fsync(handle)
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(handle, 0o666 & ~umask)  # mkstemp's 0600 would lock colleagues out
            os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Let one process at a time do the work that the file `path` stands for.

    The lock goes with the process that has it, however that ends. Raises InWork, which says that
    `what` is in work and by whom, where another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        stream = open(path, "a+b", buffering=0)
        if not _lock(stream.fileno()):
            with stream:
                stream.seek(0)
                holder = stream.read().decode().strip() or "another process"
            raise InWork(f"{what} is in work by {holder}; left alone")
        if os.fstat(stream.fileno()).st_nlink:
            break
        stream.close()  # the process that had it removed it before it was locked here
    with stream:
        try:
            with _named(path):
                stream.truncate(0)
                stream.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            yield
        finally:
            path.unlink(missing_ok=True)


def is_in_work(path: Path) -> bool:
    """Whether a process is in `alone` with this path. Call it where none will begin: it looks by locking."""
    try:
        with open(path, "rb") as stream:
            return not _lock(stream.fileno())
    except FileNotFoundError:
        return False


@contextmanager
def workplace(dest: Path) -> Iterator[Path]:
    """An empty folder beside `dest`, to make there what is then moved to it; gone at the end.

    Raises InWork where another process makes `dest` now.
    """
    with alone(dest.with_name(f".{dest.name}.lock"), str(dest)):
        folder = dest.with_name(f".{dest.name}.partial")
        shutil.rmtree(folder, ignore_errors=True)  # what a killed process left
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the file's name into the error of a full disk: write() does not know what it writes to."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            error.filename = str(path)
        raise


def _lock(handle: int) -> bool:
    """Lock an open file; False where another process has it. Some network file systems know no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _partial(path: Path) -> tuple[int, str]:
    """A new file beside `path`, open and locked: the lock says that its writer lives."""
    while True:
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        _lock(handle)
        if os.fstat(handle).st_nlink:  # 0: another process took it for a leftover before it was locked
            return handle, partial
        os.close(handle)


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left: files that nobody has locked."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        try:
            with open(leftover, "ab") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()
        except OSError:  # its writer lives, or has just ended, or locks are not known here
            continue
