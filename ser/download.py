"""Download archives over an unreliable network, and unpack them safely."""

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

TRIES = 5  # in a row without progress
WAIT = 2.0  # seconds before another try, doubled after each try without progress
TIMEOUT = 60.0  # seconds without a byte
BLOCK = 1 << 18  # bytes
LOG_EVERY = 30.0  # seconds between progress lines without a terminal
MOST = 1 << 30  # bytes that an archive may unpack to, or
MOST_TIMES = 100  # times its own size if that is more: recordings compress to a half, seldom to a tenth
LEAST = 4096  # bytes that each file or folder counts for: even an empty one takes space on disk
LONGEST_NAME = 1 << 20  # bytes that a tar may use for a member's name and times
# Errors of the disk, not of the archive.
DISK_FAULTS = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE,
}  # fmt: skip

PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP status codes after which another try may succeed


class Broken(Exception):
    """A try ended before the file was complete; another may succeed."""


def fetch(url: str, dest: Path, size: int | None, md5: str | None) -> None:
    """Download `url` to `dest`, which appears only when complete; does nothing if it is already there.

    size: bytes; None: as the server says. md5: hex digits; None: unknown, so the file is not checked (the
    archives that `unpack` reads have their own checksums). An interrupted download resumes from `dest.part`.
    Progress goes to standard error: a bar on a terminal, otherwise a line now and then. Raises UserError if
    the server refuses, if TRIES tries in a row make no progress, or if the downloaded file is not the
    expected one (it is then removed). Waits while another process downloads it.
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
                f"{url}: interrupted at {place}, {TRIES} times in a row ({reason}); run the "
                f"same command again to resume, or download the file by hand to {dest}"
            )
        wait = WAIT * 2 ** max(failures - 1, 0)
        print(f"{reason} at {place}; trying again in {wait:g} s", file=sys.stderr)
        time.sleep(wait)
    if md5 is not None and (found := _md5(part)) != md5:
        part.unlink()
        raise UserError(
            f"{url}: its MD5 is {found}, not {md5}: damaged in transfer, or another file; it was removed: "
            "run the same command again"
        )
    os.replace(part, dest)


def _size_there(url: str, part: Path) -> int:
    """Ask the server for the file's size in bytes."""
    with _answer(urllib.request.Request(url, method="HEAD"), part) as response:
        length = response.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) == 0:
            raise UserError(
                f"{url}: the server does not report the file's size; download it by hand to {part.with_suffix('')}"
            )
        return int(length)


def _fetch_rest(url: str, part: Path, size: int) -> None:
    """Try once to download the rest of `part`; raises Broken if some of it is still missing."""
    start = _size(part)
    request = urllib.request.Request(url)
    if start:
        request.add_header("Range", f"bytes={start}-")
    with _answer(request, part) as response:
        if response.status == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                part.unlink()
                raise Broken("the server sent another range than requested")
        else:
            start = 0  # it does not support Range and sends the whole file
        promised = start + (size - start if response.length is None else response.length)
        if promised != size:
            raise UserError(
                f"{url}: the file has {promised} bytes, not {size}: another file, or a login page; "
                "open the address in a browser"
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
    """Yield the server's response. Raises Broken if another try may succeed, UserError if none will."""
    url, by_hand = request.full_url, part.with_suffix("")
    request.add_header("User-Agent", "ser")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.headers.get_content_type() == "text/html":
                raise UserError(
                    f"{url}: a web page instead of the file, perhaps a login page; open the "
                    f"address in a browser, and download the file by hand to {by_hand}"
                )
            yield response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in PASSING:
            raise Broken(f"the server answered {error.code} {error.reason}") from None
        raise UserError(
            f"{url}: the server answered {error.code} {error.reason}; open the address in a browser and, "
            f"if the file has moved, download it by hand to {by_hand}"
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise Broken(f"no connection: {getattr(error, 'reason', error)}") from None


def _read(response: http.client.HTTPResponse) -> bytes:
    """Read a block; any OSError here comes from the network, not from the disk."""
    try:
        return response.read(BLOCK)
    except OSError as error:
        raise ConnectionError(str(error)) from error


@contextmanager
def _progress(part: Path, start: int, size: int) -> Iterator[Callable[[int], object]]:
    """Yield a function to call with the number of bytes of each block received."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(desc=part.stem, initial=start, total=size, unit="B", unit_scale=True) as bar:
            yield bar.update
        return
    got, logged = start, time.monotonic()

    def log(count: int) -> None:
        nonlocal got, logged
        got += count
        if time.monotonic() - logged >= LOG_EVERY or got == size:
            logged = time.monotonic()
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
    """Unpack a zip or tar (plain, gz, bz2, xz) into the new folder `dest`, which appears only when complete.

    Does nothing if `dest` exists. Raises UserError, naming the member, if one would be written outside
    `dest` (absolute name, `..`, a link that may lead out) or is a device; if the archive is damaged,
    truncated or of another kind; and if it unpacks to more than fits on the disk, or than MOST and
    MOST_TIMES allow.
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
        except Exception as error:  # zipfile and tarfile raise many kinds for a damaged archive
            if isinstance(error, OSError) and error.errno in DISK_FAULTS:
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{archive}: cannot be unpacked ({reason}); remove it and fetch it again") from None
        os.rename(folder, dest)


def _is_zip(archive: Path) -> bool:
    """Check the first bytes too: a tar whose last member is a zip ends like a zip."""
    with open(archive, "rb") as stream:
        return stream.read(2) == b"PK" and zipfile.is_zipfile(archive)


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as members:
        take = _bounded(archive, folder)
        for member in members.infolist():
            take(member.file_size)  # check all of them before writing anything
        for member in members.infolist():
            _refuse_outside(archive, member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _refused(archive, member.filename, "is a link")
            members.extract(member, folder)


class _Header(tarfile.TarInfo):
    """Raise an error for a damaged or missing header, which tarfile takes for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf == bytes(tarfile.BLOCKSIZE):  # the end
                raise
            raise tarfile.ReadError(f"a member's header is missing or damaged: {error}") from None
        of_pax = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        of_gnu = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if header.type in of_pax + of_gnu and header.size > LONGEST_NAME:  # tarfile would read it into memory
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
                        f"{member.name!r} is a link to {member.linkname!r}, which is not in the archive"
                    )
            elif not (member.isfile() or member.isdir()):
                raise _refused(archive, member.name, "is a device")
            members.extract(member, folder, filter="data")  # safe owners and permissions
        while block := members.fileobj.read(BLOCK):  # up to gzip's checksum, which comes last
            if block.strip(b"\0"):
                raise tarfile.ReadError("more data after its end")


def _bounded(archive: Path, folder: Path) -> Callable[[int], None]:
    """Return a function to call with each member's size; it raises UserError when the total is too large."""
    size, free = archive.stat().st_size, shutil.disk_usage(folder).free
    most = max(MOST, MOST_TIMES * size)
    total = 0

    def take(member: int) -> None:
        nonlocal total
        total += max(member, LEAST)
        if total > most:
            raise UserError(
                f"{archive}: has {size / 1e6:.3g} MB and unpacks to more than {most / 1e6:.0f} MB, too much for "
                "a corpus, so it was not unpacked; download it from its publisher"
            )
        if total > free:
            raise UserError(
                f"{archive}: unpacks to more than the {free / 1e6:.0f} MB free in {folder.parent}; free "
                "some space and run the same command again"
            )

    return take


def _refuse_outside(archive: Path, member: str, link: str = "") -> None:
    """Refuse `..` even in a link that looks as if it stays inside: through another link it may lead out."""
    path = PurePosixPath((link or member).replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise _refused(archive, member, f"would be written outside the folder ({link or member})")


def _refused(archive: Path, member: str, what: str) -> UserError:
    return UserError(
        f"{archive}: member {member!r} {what}, so it is unsafe and was not unpacked; download it from its publisher"
    )
