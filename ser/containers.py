"""Where the samples of a recording should end, according to its header.

libsndfile silently shortens truncated files, so each container is parsed here too: WAV, RF64, W64, AIFF, AU,
CAF, IFF (8SVX, 16SV), NIST SPHERE, Ogg, and MP3 with the frame count that encoders write. FLAC is not: its
decoder reports truncation. Most other formats that libsndfile reads (VOC, PAF, IRCAM, MAT, AVR, PVF, XI, WVE,
MPC ...) could be truncated unnoticed.
"""

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

# Programs that write to a pipe cannot know the length, and put a value of at least this into the header.
LENGTH_UNKNOWN = 0x7FFF0000
FARTHEST = 2**40  # bytes: no chunk is that long, and not every system can seek there
RF64_ELSEWHERE = 0xFFFFFFFF  # the length is in the chunk ds64
W64_RIFF = bytes.fromhex("72696666 2e91cf11 a5d628db 04c10000")
W64_DATA = bytes.fromhex("64617461 f3acd311 8cd100c0 4f8edb8a")
OGG_FIRST, OGG_LAST = 2, 4  # bits of a page's flags: first and last page of a stream
XING_FRAMES, XING_BYTES = 1, 2  # bits of its flags: which counts are present


class Promise(NamedTuple):
    """end: the byte at which the samples should end, 0 if the header leaves it open; rate: the sampling
    rate in Hz of a WAV file, None for others (libsndfile's error for a rate of 0 does not name it)."""

    end: int
    rate: int | None = None


def promise(stream: BinaryIO) -> Promise | None:
    """Read what a recording's header promises.

    None if it is none of the containers above, or its samples are not found. Raises ValueError with the
    reason if the recording is incomplete or cannot be checked.
    """
    stream.seek(0)
    head = stream.read(12).ljust(12, b"\0")
    form, kind = head[:4], head[8:]
    if form in (b"RIFF", b"RIFX", b"RF64") and kind == b"WAVE":
        return _wave(stream, ">" if form == b"RIFX" else "<")
    if form == b"FORM" and kind in (b"AIFF", b"AIFC", b"8SVX", b"16SV"):
        return _iff(stream, b"SSND" if kind.startswith(b"AIF") else b"BODY")
    if form == b"caff":
        return _caf(stream)
    if form in (b".snd", b"dns."):
        return _au(head, ">" if form == b".snd" else "<")
    if head.startswith(b"NIST_1A"):
        return _nist(stream)
    if form == b"OggS":
        return _ogg(stream)
    if head.startswith(b"ID3") or (head[0] == 0xFF and head[1] >= 0xE0):
        return _mp3(stream)
    stream.seek(0)
    if stream.read(16) == W64_RIFF:
        return _w64(stream)
    return None


def _chunks(stream: BinaryIO, start: int, head: str, align: int, own: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and length of each chunk from `start` on. `head`: struct format of name and length;
    `own`: bytes of the chunk's head that its length includes."""
    size = struct.calcsize(head)
    stream.seek(start)
    while len(chunk := stream.read(size)) == size:
        name, length = struct.unpack(head, chunk)
        start, length = stream.tell(), length - own
        yield name, start, length
        if not 0 <= length < FARTHEST:
            return
        stream.seek(start + length + -length % align)


def _wave(stream: BinaryIO, order: str) -> Promise | None:
    rate, long = None, 0
    for name, start, length in _chunks(stream, 12, f"{order}4sI", 2):
        if name == b"ds64" and len(sizes := stream.read(16)) == 16:
            long = struct.unpack("<8xQ", sizes)[0]
        if name == b"fmt " and len(sizes := stream.read(8)) == 8:
            rate = struct.unpack(f"{order}4xI", sizes)[0]
        if name == b"data":
            if length == RF64_ELSEWHERE and long:
                length = long
            elif length >= LENGTH_UNKNOWN:
                return Promise(0, rate)
            return Promise(start + length, rate)
    return None


def _iff(stream: BinaryIO, samples: bytes) -> Promise | None:
    for name, start, length in _chunks(stream, 12, ">4sI", 2):
        if name == samples:
            return Promise(0 if length >= LENGTH_UNKNOWN else start + length)
    return None


def _caf(stream: BinaryIO) -> Promise | None:
    """The end of the samples or, if compressed, of the packet table, whichever is later."""
    ends = [start + length for name, start, length in _chunks(stream, 8, ">4sq", 1) if name in (b"data", b"pakt")]
    return Promise(max(ends)) if ends else None


def _w64(stream: BinaryIO) -> Promise | None:
    for name, start, length in _chunks(stream, 40, "<16sQ", 8, own=24):
        if name == W64_DATA:
            return Promise(start + length)
    return None


def _au(head: bytes, order: str) -> Promise:
    start, length = struct.unpack(f"{order}4xII", head)
    return Promise(0 if length >= LENGTH_UNKNOWN else start + length)


def _nist(stream: BinaryIO) -> Promise:
    stream.seek(0)
    size = re.match(rb"NIST_1A\s+(\d{1,7})\s", stream.read(24))
    stream.seek(0)
    length = int(size[1]) if size else 0
    fields = dict(re.findall(rb"(?m)^(\w+) -\w+ (\S+)", stream.read(length)))
    if b"embedded" in fields.get(b"sample_coding", b""):
        return Promise(0)  # compressed, which libsndfile refuses
    try:
        samples, channels, width = (
            int(fields[name]) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")
        )
    except (KeyError, ValueError):
        raise ValueError("its header does not say how many samples it has; fetch it again") from None
    return Promise(length + samples * channels * width)


def _ogg(stream: BinaryIO) -> Promise:
    end, flags, count = 0, 0, 0
    while True:
        stream.seek(end)
        head = stream.read(27)
        if head[:4] != b"OggS" and flags & OGG_LAST:
            return Promise(end)
        if len(head) < 27 or head[:4] != b"OggS":
            raise ValueError("cut short: its last page is missing; fetch it again")
        if count != struct.unpack("<18xI5x", head)[0] or (count and head[5] & OGG_FIRST):
            raise ValueError("pages are missing, or it holds several streams; fetch it again, or convert it to WAV")
        flags, count = head[5], count + 1
        lengths = stream.read(head[26])
        end += 27 + head[26] + sum(lengths)


def _mp3(stream: BinaryIO) -> Promise | None:
    """From the Xing frame that encoders put first; without it the number of frames is unknown."""
    stream.seek(0)
    head = stream.read(10).ljust(10, b"\0")
    start = 0
    if head.startswith(b"ID3"):
        start = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        stream.seek(start)
        if stream.read(4) == b"fLaC":
            return None
    stream.seek(start)
    counts = re.search(rb"(?s)(?:Xing|Info)(.{4})(.{4})(.{4})", stream.read(200))
    flags = int.from_bytes(counts[1], "big") if counts else 0
    if not counts or not flags & XING_FRAMES:
        raise ValueError("an MP3 file that does not say how long it is; convert the original to WAV or FLAC")
    return Promise(start + int.from_bytes(counts[3], "big") if flags & XING_BYTES else 0)
