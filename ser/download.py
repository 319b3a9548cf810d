"""Fetch archives over a network that breaks, and unpack them without trusting them."""

import hashlib
import http.client
import lzma
import os
import stat
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ser.cli import UserError
from ser.files import alone, workplace

TRIES = 5  # in a row that bring nothing new
WAIT = 2.0  # seconds before another try, doubled with each that brought nothing
TIMEOUT = 60.0  # seconds without a byte
BLOCK = 1 << 18  # bytes
LOG_EVERY = 30.0  # seconds between lines where there is no terminal

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
        with open(part, "ab" if start else "wb") as stream, _progress(part, start, size) as progress:
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
    would lie outside `dest` (absolute name, `..`, a link that may lead out) or is a device; and
    where the archive is damaged or of another kind.
    """
    if dest.exists():
        return
    print(f"unpacking {archive}", file=sys.stderr)
    with workplace(dest) as folder:
        if dest.exists():  # another process has just done it
            return
        try:
            if zipfile.is_zipfile(archive):
                _unpack_zip(archive, folder)
            else:
                _unpack_tar(archive, folder)
        except (
            zipfile.BadZipFile,
            tarfile.TarError,
            zlib.error,
            lzma.LZMAError,
            EOFError,
            RuntimeError,  # encrypted, or packed in a way that zipfile does not know
            OSError,  # gzip and bz2 say so that data are damaged
        ) as error:
            if isinstance(error, OSError) and error.errno is not None:  # no fault of the archive
                raise
            raise UserError(
                f"{archive}: cannot be unpacked ({error}); remove it and fetch it again"
            ) from None
        os.rename(folder, dest)


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            _refuse_outside(archive, member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _refused(archive, member.filename, "is a link")
            members.extract(member, folder)


def _unpack_tar(archive: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise UserError(f"{archive}: this Python cannot unpack it safely; use Python 3.10.12 or newer")
    with tarfile.open(archive) as members:
        for member in members:
            _refuse_outside(archive, member.name)
            if member.issym() or member.islnk():
                _refuse_outside(archive, member.name, member.linkname)
            elif not (member.isfile() or member.isdir()):
                raise _refused(archive, member.name, "is a device")
            members.extract(member, folder, filter="data")  # sane owners and rights
        while members.fileobj.read(BLOCK):  # gzip's checksum comes last
            pass


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
