"""Atomic writes, locks for work that one process may do at a time, and the current folder."""

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


class InUse(UserError):
    """Another process is already doing the work."""


@contextmanager
def whole(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file that is renamed to `path` when the block ends without an error.

    mode: "w" (UTF-8 text) or "wb". Parent folders are created. A reader sees either the old file or the
    new one, never a partial one, even after a power failure. A killed writer leaves at most a hidden
    temporary file beside it, which the next writer of `path` removes.
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
    """Hold the lock file `path` while the block runs, so that one process at a time does the work.

    The lock is released when its process ends, for whatever reason. If another process holds it, InUse is
    raised, saying who uses `what`. With `wait` that is printed instead, and the lock is waited for; by then
    the work may have been done.
    """
    while True:
        is_new = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as stream:
            if not _lock(stream.fileno()):
                stream.seek(0)
                holder = stream.read().decode().strip() or "another process"
                if not wait:
                    raise InUse(f"{what} is in use by {holder}; skipped")
                print(f"{what} is in use by {holder}; waiting for it to finish", flush=True)
                _lock(stream.fileno(), wait=True)
            if not os.fstat(stream.fileno()).st_nlink:
                continue  # its holder removed the file before we locked it
            try:
                with named(path):
                    stream.truncate(0)
                    stream.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                yield
            finally:
                path.unlink(missing_ok=True)
                if is_new:
                    with suppress(OSError):  # leave no empty folder behind
                        path.parent.rmdir()
            return


def is_in_use(path: Path) -> bool:
    """Whether a process holds `alone` on this path. It tests by locking, so call it only when no process can
    be about to start."""
    try:
        with open(path, "rb") as stream:
            return not _lock(stream.fileno())
    except FileNotFoundError:
        return False


@contextmanager
def workplace(dest: Path) -> Iterator[Path]:
    """An empty folder beside `dest`, to build in before moving the result to `dest`; removed at the end.

    Waits while another process is making `dest`, which may then exist already.
    """
    with alone(dest.with_name(f".{dest.name}.lock"), str(dest), wait=True):
        folder = dest.with_name(f".{dest.name}.partial")
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def is_same(path: Path, other: Path) -> bool:
    """Whether two files, or two folders (recursively), hold the same bytes; False if either is missing."""
    if path.is_dir() and other.is_dir():
        names = {below.name for below in path.iterdir()}
        return names == {below.name for below in other.iterdir()} and all(
            is_same(path / name, other / name) for name in names
        )
    return path.is_file() and other.is_file() and path.read_bytes() == other.read_bytes()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Add the file's name to a disk-full error, since write() reports none."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            error.filename = str(path)
        raise


def _lock(handle: int, wait: bool = False) -> bool:
    """Lock an open file, or wait for the lock with `wait`; False if another process holds it. Some network
    file systems have no locks: there it is True."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _partial(path: Path) -> tuple[int, str]:
    """A new file beside `path`, open and locked; the lock shows that its writer is alive."""
    while True:
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        _lock(handle)
        if os.fstat(handle).st_nlink:  # 0: another process removed it as a leftover before it was locked
            return handle, partial
        os.close(handle)


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """Make a folder the current one while the block runs."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of killed writers of `path`: those that nobody has locked."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        try:
            with open(leftover, "ab") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()
        except OSError:  # its writer is alive, or has just ended, or there are no locks here
            continue


def read_text(path: Path) -> str:
    """The content of a run's text file. Raises UserError where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{number}: not UTF-8 text; remove the file and run its stage again") from None
