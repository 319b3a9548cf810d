"""Random damage to the bytes of a file, as caused by disks, networks, editors and people."""

import gzip
import io
import json
import re
import struct
import zipfile
from random import Random

COMMON = [
    b"", b"\0", b"\0" * 600, b"\xef\xbb\xbf", b"\x1b[2J", b"\x1b]0;x\x07", b"\xff", b"\xe9", b"\xed\xa0\x80", b"\n", b"\n\n",
    b"\r", b"\r\n", b"\t", b" ", "\u2028".encode(), "\x85".encode(), "\xa0".encode(), "é".encode(), "\ud800".encode(errors="surrogatepass"),
    b"0", b"-0", b"-1", b"1e999", b"-1e999", b"1e39", b"1e-999", b"nan", b"NaN", b"inf", b"-inf", b"Infinity", b"1_0", b"0x10",
    b"99999999999999999999", b"-99999999999999999999", b"4294967295", b"2147483648", b"1" * 5000, b"../", b"/", b"~", b"|", b"touch x |",
    b"a" * 300, b"#", b":", b"-", b".", b"\\", b"\"", b"'", "٣".encode(), b"%s%n", b"x" * 70000,
]  # fmt: skip
YAML = [
    b"&a ", b"*a", b"<<: ", b"!!python/object/apply:os.getcwd []", b"!!binary ", b"!!set ", b"? ", b"{", b"}", b"[", b"]", b"[" * 2000,
    b"{a: " * 2000, b"- ", b": ", b"2001-13-45", b"2001-01-01", b"null", b"~: 1", b"true", b"no", b"---\n", b"...\n", b"%YAML 9.9\n", b"0o17",
    b"1:30", b"1e3", b".inf", b".nan", b"|\n", b">\n", b"base: x.yaml\n", b"base: [a]\n", b"base: \0\n", b"kind: svm\n", b"kind: []\n",
]  # fmt: skip
JSON = [
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"[" * 100000,
    b'{"a":' * 3000,
    b",",
    b'"',
    b'"\\ud800"',
    b"1E400",
    b"-NaN",
]
BINARY = [
    *(struct.pack(form, number) for form in ("<I", ">I", "<H", ">H") for number in (0, 1, 0x7FFF, 0xFFFF)),
    *(struct.pack(form, number) for form in ("<I", ">I") for number in (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 10**9)),
    *(struct.pack(form, 2**number - 1) for form in ("<Q", ">Q") for number in (40, 63, 64)),
    *(struct.pack(form, float(value)) for form in ("<f", "<d", ">f") for value in ("nan", "inf", "-inf", "1e38")),
]  # fmt: skip
TOKENS = {"text": COMMON, "yaml": COMMON + YAML, "json": COMMON + JSON, "binary": COMMON + BINARY}


def mutant(content: bytes, kind: str, rng: Random) -> bytes:
    """A file's bytes with some damage. kind: "text", "yaml", "json", "binary", or a packed format, "zip", "gz",
    "tar" or "safetensors", whose checksums and lengths are corrected for half of the mutants, so that the code that
    runs after checking them is reached, too."""
    if kind in PACKED and rng.random() < 0.5:
        return PACKED[kind](content, rng)
    return damaged(content, TOKENS.get(kind, TOKENS["binary"]), rng)


def damaged(content: bytes, tokens: list[bytes], rng: Random) -> bytes:
    """Apply one or a few faults."""
    for _ in range(rng.choice([1, 1, 1, 1, 2, 3, 8])):
        content = rng.choice(FAULTS)(content, tokens, rng)
    return content


def flip(content: bytes, tokens: list[bytes], rng: Random) -> bytes:
    if not content:
        return content
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def insert(content: bytes, tokens: list[bytes], rng: Random) -> bytes:
    place = rng.randint(0, len(content))
    return content[:place] + rng.randbytes(rng.randint(1, 8)) + content[place:]


def delete(content: bytes, tokens: list[bytes], rng: Random) -> bytes:
    place = rng.randint(0, len(content))
    return content[:place] + content[place + rng.randint(1, 16) :]


def truncate(content: bytes, tokens: list[bytes], rng: Random) -> bytes:
    return content[: rng.randint(0, len(content))]


def repeat(content: bytes, tokens: list[bytes], rng: Random) -> bytes:
    """Move a chunk, or overwrite another one with it."""
    start, place = rng.randint(0, len(content)), rng.randint(0, len(content))
    chunk = content[start : start + rng.choice([4, 50, 512, 5000])]
    return content[:place] + chunk + content[place + rng.choice([0, len(chunk)]) :]


def splice(content: bytes, tokens: list[bytes], rng: Random) -> bytes:
    place, token = rng.randint(0, len(content)), rng.choice(tokens)
    return content[:place] + token + content[place + rng.choice([0, len(token)]) :]


def reword(content: bytes, tokens: list[bytes], rng: Random) -> bytes:
    """Replace a word by a token."""
    words = list(re.finditer(rb"[^\s,:\"\[\]{}]+", content[:100_000]))
    if not words:
        return rng.choice(tokens) + content
    word = rng.choice(words)
    return content[: word.start()] + rng.choice(tokens) + content[word.end() :]


def reline(content: bytes, tokens: list[bytes], rng: Random) -> bytes:
    """Remove, move or copy a line."""
    lines = content.split(b"\n")
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.choice([0, 1, 2])):
        lines.insert(rng.randint(0, len(lines)), line)
    return b"\n".join(lines)


FAULTS = [flip, insert, delete, truncate, repeat, splice, splice, reword, reword, reline]


def in_zip(content: bytes, rng: Random) -> bytes:
    """Damage a member, or the name of a member, of a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(item.filename, archive.read(item)) for item in archive.infolist()]
    place = rng.randrange(len(members))
    name, inner = members[place]
    if rng.random() < 0.2:
        name = damaged(name.encode(), COMMON, rng).decode(errors="replace").split("\0")[0][:60000]
    else:
        inner = damaged(inner, TOKENS["json" if inner[:1] == b"{" else "binary"], rng)
    members[place] = name, inner
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, inner in dict(members).items():
            archive.writestr(zipfile.ZipInfo(name), inner, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def in_gz(content: bytes, rng: Random) -> bytes:
    inner = gzip.decompress(content)
    return gzip.compress(in_tar(inner, rng) if inner[257:262] == b"ustar" else damaged(inner, COMMON, rng), mtime=0)


def in_tar(content: bytes, rng: Random) -> bytes:
    """Damage a field of a header, and update the checksum of the header."""
    blocks = [content[place : place + 512] for place in range(0, len(content), 512)]
    headers = [number for number, block in enumerate(blocks) if block[257:262] == b"ustar"]
    number = rng.choice(headers)
    block = bytearray(blocks[number])
    start, size = rng.choice(
        [(0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155)]
    )
    field = bytes(block[start : start + size])
    value = (
        rng.choice(b"0123456gxLKSVDNA\0").to_bytes(1, "big")
        if size == 1
        else damaged(field, TOKENS["binary"] + [b"\x80" * 12], rng)
    )
    block[start : start + size] = value[:size].ljust(size, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    blocks[number] = bytes(block)
    return b"".join(blocks)


def in_safetensors(content: bytes, rng: Random) -> bytes:
    """Damage the JSON of the header, or a value in it, and update its length."""
    size = struct.unpack("<Q", content[:8])[0]
    head = content[8 : 8 + size]
    if rng.random() < 0.5:
        head = damaged(head, TOKENS["json"], rng)
    else:
        about = json.loads(head)
        name = rng.choice(list(about))
        part = json.dumps(about[name]).encode()
        try:
            about[name] = json.loads(damaged(part, TOKENS["json"], rng))
        except (ValueError, RecursionError):
            about.pop(name)
        head = json.dumps(about).encode()
    return struct.pack("<Q", len(head)) + head + content[8 + size :]


PACKED = {"zip": in_zip, "gz": in_gz, "tar": in_tar, "safetensors": in_safetensors}
