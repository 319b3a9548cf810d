"""Files that appear whole or not at all, and work that one process does at a time."""

import errno
import fcntl
import glob
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        with named(path), open(handle, mode, encoding=encoding) as stream:
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
def alone(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Let one process at a time do the work that the file `path` stands for.

    The lock goes with the process that has it, however that ends. Where another process has it, a line says that
    `what` is in work and by whom: the one of InWork, which is raised, or with `wait` one on standard output
    before its end is waited for. The work may be done then.
    """
    while True:
        is_new = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as stream:
            if not _lock(stream.fileno()):
                stream.seek(0)
                holder = stream.read().decode().strip() or "another process"
                if not wait:
                    raise InWork(f"{what} is in work by {holder}; left alone")
                print(f"{what} is in work by {holder}; waiting for its end", flush=True)
                _lock(stream.fileno(), wait=True)
            if not os.fstat(stream.fileno()).st_nlink:
                continue  # the process that had it removed it before it was locked here
            try:
                with named(path):
                    stream.truncate(0)
                    stream.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                yield
            finally:
                path.unlink(missing_ok=True)
                if is_new:
                    with suppress(OSError):  # work that was refused leaves no empty folder
                        path.parent.rmdir()
            return


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

    Waits where another process makes `dest` now: it may be there then.
    """
    with alone(dest.with_name(f".{dest.name}.lock"), str(dest), wait=True):
        folder = dest.with_name(f".{dest.name}.partial")
        shutil.rmtree(folder, ignore_errors=True)  # what a killed process left
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def is_same(path: Path, other: Path) -> bool:
    """Whether two files, or two folders with all below them, hold the same bytes; False where one is not there."""
    if path.is_dir() and other.is_dir():
        names = {below.name for below in path.iterdir()}
        return names == {below.name for below in other.iterdir()} and all(
            is_same(path / name, other / name) for name in names
        )
    return path.is_file() and other.is_file() and path.read_bytes() == other.read_bytes()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Put the file's name into the error of a full disk: write() does not know what it writes to."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            error.filename = str(path)
        raise


def _lock(handle: int, wait: bool = False) -> bool:
    """Lock an open file; False where another process has it, unless that is waited for. Some network file
    systems know no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
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
