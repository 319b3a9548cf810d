"""Fetch archives over a network that breaks, and unpack them without trusting them."""

import errno
import hashlib
import http.client
import os
import shutil
import stat
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ser.cli import UserError
from ser.files import alone, named, workplace

TRIES = 5  # in a row that bring nothing new
WAIT = 2.0  # seconds before another try, doubled with each that brought nothing
TIMEOUT = 60.0  # seconds without a byte
BLOCK = 1 << 18  # bytes
LOG_EVERY = 30.0  # seconds between lines where there is no terminal
MOST = 1 << 30  # bytes that an archive may unpack to, or
MOST_TIMES = 100  # times its own size if that is more: recordings shrink to a half, seldom to a tenth
LEAST = 4096  # bytes that each file, or folder, counts for: on a disk an empty one takes room too
LONGEST_NAME = 1 << 20  # bytes that a tar may take to say a member's name and times
# What the disk says of itself, and not of what is unpacked to it.
DISK_FAULTS = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE,
}  # fmt: skip

PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP answers after which another try may do


class Broken(Exception):
    """Why a try ended before the file was whole; another may do."""


def fetch(url: str, dest: Path, size: int | None, md5: str | None) -> None:
    """Download `url` to `dest`, which appears whole; nothing is done where it is whole already.

    size: bytes; None: as many as the server says. md5: hex digits; None: nobody knows them, and what came is
    not checked (the archives that `unpack` reads have checksums of their own). A download that broke, or was
    stopped, is gone on with from `dest.part`. Progress goes to standard error: a bar on a terminal, else a
    line now and then. Raises UserError where the server refuses, where TRIES tries in a row bring nothing
    new, or where what came is not the file that was asked for (which is removed then). Waits where another
    process fetches it.
    """
    with alone(dest.with_name(f".{dest.name}.lock"), str(dest), wait=True):
        _fetch(url, dest, size, md5)


def _fetch(url: str, dest: Path, size: int | None, md5: str | None) -> None:
    if dest.is_file() and size in (None, _size(dest)) and (md5 is None or _md5(dest) == md5):
        return
    part = dest.with_name(f"{dest.name}.part")
    most = failures = 0
    while True:
        try:
            if size is None:
                size = _size_there(url, part)
            if _size(part) > size:  # of another file
                part.unlink()
            if _size(part) < size:
                _fetch_rest(url, part, size)
            break
        except Broken as error:
            reason = str(error)
        got = _size(part)
        failures = 0 if got > most else failures + 1
        most = max(most, got)
        place = f"{got} of {'unknown' if size is None else size} bytes"
        if failures == TRIES:
            raise UserError(
                f"{url}: broke off at {place}, {TRIES} times in a row ({reason}); run the "
                f"same command again to go on from there, or fetch the file by hand to {dest}"
            )
        wait = WAIT * 2 ** max(failures - 1, 0)
        print(f"{reason} at {place}; trying again in {wait:g} s", file=sys.stderr)
        time.sleep(wait)
    if md5 is not None and (found := _md5(part)) != md5:
        part.unlink()
        raise UserError(
            f"{url}: its MD5 is {found}, not {md5}: damaged on the way or another file; it was removed, "
            "run the same command again"
        )
    os.replace(part, dest)


def _size_there(url: str, part: Path) -> int:
    """Ask the server for the file's size in bytes."""
    with _answer(urllib.request.Request(url, method="HEAD"), part) as response:
        length = response.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) == 0:
            raise UserError(
                f"{url}: the server does not say how long the file is; fetch it by hand to {part.with_suffix('')}"
            )
        return int(length)


def _fetch_rest(url: str, part: Path, size: int) -> None:
    """Try once to append what `part` lacks; raises Broken where it still lacks some."""
    start = _size(part)
    request = urllib.request.Request(url)
    if start:
        request.add_header("Range", f"bytes={start}-")
    with _answer(request, part) as response:
        if response.status == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                part.unlink()
                raise Broken("the server sent another part than was asked for")
        else:
            start = 0  # it knows no Range and sends the whole file
        promised = start + (size - start if response.length is None else response.length)
        if promised != size:
            raise UserError(
                f"{url}: the file there has {promised} bytes, not {size}: another file, or a page "
                "that asks to log in; open the address in a browser"
            )
        part.parent.mkdir(parents=True, exist_ok=True)
        with (
            named(part),
            open(part, "ab" if start else "wb") as stream,
            _progress(part, start, size) as progress,
        ):
            while stream.tell() < size and (block := _read(response)):
                progress(stream.write(block[: size - stream.tell()]))
    if _size(part) < size:
        raise Broken("the server closed the connection")


@contextmanager
def _answer(request: urllib.request.Request, part: Path) -> Iterator[http.client.HTTPResponse]:
    """Give the server's answer. Raises Broken where another try may do, UserError where none will."""
    url, by_hand = request.full_url, part.with_suffix("")
    request.add_header("User-Agent", "ser")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.headers.get_content_type() == "text/html":
                raise UserError(
                    f"{url}: a web page came in place of the file, maybe one that asks to log in; open the "
                    f"address in a browser, and fetch the file by hand to {by_hand}"
                )
            yield response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in PASSING:
            raise Broken(f"the server answered {error.code} {error.reason}") from None
        raise UserError(
            f"{url}: the server answered {error.code} {error.reason}; open the address in a browser, and "
            f"fetch the file by hand to {by_hand} if it has moved"
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise Broken(f"no connection: {getattr(error, 'reason', error)}") from None


def _read(response: http.client.HTTPResponse) -> bytes:
    """Read a block; whatever goes wrong is the network's fault, and not the disk's."""
    try:
        return response.read(BLOCK)
    except OSError as error:
        raise ConnectionError(str(error)) from error


@contextmanager
def _progress(part: Path, start: int, size: int) -> Iterator[Callable[[int], object]]:
    """Give a function to call with the number of bytes of each block that came."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(desc=part.stem, initial=start, total=size, unit="B", unit_scale=True) as bar:
            yield bar.update
        return
    got, told = start, time.monotonic()

    def log(count: int) -> None:
        nonlocal got, told
        got += count
        if time.monotonic() - told >= LOG_EVERY or got == size:
            told = time.monotonic()
            print(f"{part.stem}: {got / 1e6:.1f} of {size / 1e6:.1f} MB ({got / size:.0%})", file=sys.stderr)

    yield log


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def unpack(archive: Path, dest: Path) -> None:
    """Unpack a zip or tar (plain, gz, bz2, xz) into the new folder `dest`, which appears whole.

    Nothing is done where `dest` is there already. Raises UserError, naming the member, where one
    would lie outside `dest` (absolute name, `..`, a link that may lead out) or is a device; where the
    archive is damaged, not whole or of another kind; and where it unpacks to more than the disk has
    room for, or than MOST and MOST_TIMES allow.
    """
    if dest.exists():
        return
    print(f"unpacking {archive}", file=sys.stderr)
    with workplace(dest) as folder:
        if dest.exists():  # another process has just done it
            return
        try:
            with named(dest):
                if _is_zip(archive):
                    _unpack_zip(archive, folder)
                else:
                    _unpack_tar(archive, folder)
        except UserError:
            raise
        except Exception as error:  # zipfile and tarfile tell a damaged archive by many kinds
            if isinstance(error, OSError) and error.errno in DISK_FAULTS:
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"{archive}: cannot be unpacked ({reason}); remove it and fetch it again"
            ) from None
        os.rename(folder, dest)


def _is_zip(archive: Path) -> bool:
    """A tar whose last member is a zip ends like one: only a zip begins like one too."""
    with open(archive, "rb") as stream:
        return stream.read(2) == b"PK" and zipfile.is_zipfile(archive)


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as members:
        take = _bounded(archive, folder)
        for member in members.infolist():
            take(member.file_size)  # of all of them, before anything is written
        for member in members.infolist():
            _refuse_outside(archive, member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _refused(archive, member.filename, "is a link")
            members.extract(member, folder)


class _Header(tarfile.TarInfo):
    """tarfile takes a header that is damaged, or missing, for the archive's end: here it is an error."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf == bytes(tarfile.BLOCKSIZE):  # the end
                raise
            raise tarfile.ReadError(f"no header of a member where one should be: {error}") from None
        names = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        names += (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if header.type in names and header.size > LONGEST_NAME:  # tarfile would read it into memory
            raise tarfile.ReadError(f"a member's name of {header.size} bytes")
        return header


def _unpack_tar(archive: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise UserError(f"{archive}: this Python cannot unpack it safely; use Python 3.10.12 or newer")
    with tarfile.open(archive, tarinfo=_Header) as members:
        take = _bounded(archive, folder)
        for member in members:
            take(member.size)
            _refuse_outside(archive, member.name)
            if member.issym() or member.islnk():
                _refuse_outside(archive, member.name, member.linkname)
                if member.islnk() and not os.path.lexists(folder / member.linkname):
                    raise tarfile.ReadError(
                        f"{member.name!r} is a link to {member.linkname!r}, which it lacks"
                    )
            elif not (member.isfile() or member.isdir()):
                raise _refused(archive, member.name, "is a device")
            members.extract(member, folder, filter="data")  # sane owners and rights
        while block := members.fileobj.read(BLOCK):  # to gzip's checksum, which comes last
            if block.strip(b"\0"):
                raise tarfile.ReadError("more data behind its end")


def _bounded(archive: Path, folder: Path) -> Callable[[int], None]:
    """Give a function to call with the size of each member, which raises UserError where all come to too much."""
    size, free = archive.stat().st_size, shutil.disk_usage(folder).free
    most = max(MOST, MOST_TIMES * size)
    total = 0

    def take(member: int) -> None:
        nonlocal total
        total += max(member, LEAST)
        if total > most:
            raise UserError(
                f"{archive}: has {size / 1e6:.3g} MB and unpacks to more than {most / 1e6:.0f} MB, which no corpus "
                "does; it was not unpacked: fetch it from its publisher"
            )
        if total > free:
            raise UserError(
                f"{archive}: unpacks to more than the {free / 1e6:.0f} MB that are free in {folder.parent}; free "
                "some space and run the same command again"
            )

    return take


def _refuse_outside(archive: Path, member: str, link: str = "") -> None:
    """Refuse `..` also in a link that stays inside by its letters: behind another link it may not."""
    path = PurePosixPath((link or member).replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise _refused(archive, member, f"would lie outside ({link or member})")


def _refused(archive: Path, member: str, what: str) -> UserError:
    return UserError(
        f"{archive}: member {member!r} {what}; the archive cannot be trusted and was not unpacked: "
        "fetch it from its publisher"
    )
