import io
import itertools
import struct

import numpy as np
import pytest
import soundfile

from ser import audio, containers
from ser.cli import UserError

RATE = 16000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 2000).astype(np.float32)
TAKEN = "WAV WAVEX RF64 W64 AIFF AU CAF SVX NIST FLAC OGG MP3".split()
KINDS = [  # container, coding, byte order
    ("WAV", "PCM_16", "FILE"),
    ("WAV", "PCM_24", "BIG"),
    ("WAV", "IMA_ADPCM", "FILE"),
    ("WAVEX", "FLOAT", "FILE"),
    ("RF64", "PCM_16", "FILE"),
    ("W64", "PCM_16", "FILE"),
    ("W64", "GSM610", "FILE"),
    ("AIFF", "PCM_16", "LITTLE"),
    ("AIFF", "PCM_U8", "FILE"),
    ("AU", "PCM_16", "BIG"),
    ("AU", "ULAW", "LITTLE"),
    ("CAF", "PCM_16", "FILE"),
    ("CAF", "ALAC_16", "FILE"),
    ("SVX", "PCM_S8", "FILE"),
    ("SVX", "PCM_16", "FILE"),
    ("NIST", "PCM_16", "FILE"),
    ("NIST", "ULAW", "FILE"),
    ("FLAC", "PCM_16", "FILE"),
    ("OGG", "VORBIS", "FILE"),
    ("OGG", "OPUS", "FILE"),
    ("MP3", "MPEG_LAYER_III", "FILE"),
]


def written(kind, coding=None, order="FILE", channels=1):
    """A recording's bytes, as libsndfile writes them."""
    stream = io.BytesIO()
    samples = NOISE if channels == 1 else np.stack([NOISE] * channels, axis=1)
    rate = {"WVE": 8000, "MPC2K": 44100, "XI": 44100}.get(kind, RATE)
    soundfile.write(stream, samples, rate, format=kind, subtype=coding, endian=order)
    return stream.getvalue()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("kind", "coding", "order"), KINDS)
def test_a_recording_is_read_whole_or_not_at_all(tmp_path, kind, coding, order, channels):
    """Cut anywhere: in its header, at its half, within its last samples."""
    if channels == 2 and (kind == "SVX" or coding == "GSM610"):
        pytest.skip("has one channel")
    content = written(kind, coding, order, channels)
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    whole, _ = audio.read(path)
    assert len(whole) >= len(NOISE)  # blocks of a coding are whole
    taken = []
    for size in {*range(0, 100, 3), len(content) // 2, len(content) * 9 // 10, *range(len(content) - 8, len(content))}:
        path.write_bytes(content[:size])
        try:
            np.testing.assert_array_equal(audio.read(path)[0], whole)
            taken.append(size)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
    assert taken in ([], [len(content) - 1])  # a byte that makes the length even


@pytest.mark.parametrize("kind", "WAV WAVEX RF64 W64 AIFF AU CAF SVX NIST MP3".split())
def test_it_says_how_much_is_missing(tmp_path, kind):
    content = written(kind)
    (tmp_path / "a.wav").write_bytes(content[:-1000])
    with pytest.raises(UserError, match="a.wav: cut short: 1000 bytes are missing; fetch it again"):
        audio.header(tmp_path / "a.wav")
    assert containers.promise(io.BytesIO(content)).end == len(content)
    assert containers.promise(io.BytesIO(content + b"more")).end == len(content)


def test_what_cannot_be_checked_is_refused(tmp_path):
    """All that libsndfile writes, so that a new version's new formats are seen."""
    path = tmp_path / "a.wav"
    refused = []
    for kind in soundfile.available_formats():
        if kind in ("RAW", "SD2"):  # no header; a second file
            continue
        path.write_bytes(written(kind))
        try:
            audio.read(path)
        except UserError as error:
            assert "cannot check that a file of this format" in str(error)
            assert str(error).endswith(", is complete; convert the original to WAV or FLAC")
            refused.append(kind)
    assert sorted({*soundfile.available_formats()} - {*refused, "RAW", "SD2"}) == sorted(TAKEN)


@pytest.mark.parametrize(
    ("kind", "place", "unknown"),
    [("AU", 8, b"\xff" * 4), ("AIFF", None, b"\xff" * 4), ("WAV", None, b"\xff" * 4)],
)
def test_a_length_that_is_open_is_no_promise(tmp_path, kind, place, unknown):
    """As programs write it that write to a pipe."""
    content = bytearray(written(kind, "PCM_16", "BIG" if kind == "AU" else "FILE"))
    place = place or content.index(b"SSND" if kind == "AIFF" else b"data") + 4
    content[place : place + len(unknown)] = unknown
    (tmp_path / "a.wav").write_bytes(content)
    assert containers.promise(io.BytesIO(content)).end == 0
    assert len(audio.read(tmp_path / "a.wav")[0]) >= len(NOISE)


def pages(content):
    """Where each page of an Ogg file starts, and where the last ends."""
    starts = [0]
    while starts[-1] < len(content):
        count = content[starts[-1] + 26]
        lengths = content[starts[-1] + 27 : starts[-1] + 27 + count]
        starts.append(starts[-1] + 27 + count + sum(lengths))
    return starts


@pytest.mark.parametrize("coding", ["VORBIS", "OPUS"])
def test_an_ogg_has_all_its_pages(tmp_path, monkeypatch, coding):
    monkeypatch.setattr(f"{__name__}.NOISE", np.tile(NOISE, 40))
    content = written("OGG", coding)
    starts = pages(content)
    assert len(starts) > 5
    path = tmp_path / "a.wav"
    path.write_bytes(content + b"TAG" + bytes(125))
    audio.header(path)
    for start in starts[:-1]:
        path.write_bytes(content[:start])
        with pytest.raises(UserError, match="a.wav: (cut short: its last page is missing|empty file); fetch it again"):
            audio.header(path)
    for start, end in itertools.pairwise(starts[:-1]):
        path.write_bytes(content[:start] + content[end:])
        with pytest.raises(UserError, match="a.wav: pages are missing, or it holds several streams; fetch it again"):
            audio.header(path)
    path.write_bytes(content + content)  # of which libsndfile reads the first
    with pytest.raises(UserError, match="a.wav: pages are missing, or it holds several streams"):
        audio.header(path)


def test_an_mp3_says_how_many_frames_it_has(tmp_path):
    content = written("MP3")
    tag = b"ID3\x04\0\0" + bytes([0, 0, 2, 1]) + bytes(257)
    path = tmp_path / "a.mp3"
    for start in (b"", tag):
        path.write_bytes(start + content + b"TAG" + bytes(125))
        assert len(audio.read(path)[0]) == len(NOISE)
        path.write_bytes(start + content[:-10])
        with pytest.raises(UserError, match="a.mp3: cut short: 10 bytes are missing"):
            audio.header(path)
        path.write_bytes(start + content[content.index(content[:2], 2) :])  # libsndfile counts what is there
        with pytest.raises(UserError, match="a.mp3: an MP3 file that does not say how long it is; convert"):
            audio.header(path)
    path.write_bytes(tag + written("FLAC"))
    assert len(audio.read(path)[0]) == len(NOISE)


def test_a_sphere_file_without_its_count_is_refused(tmp_path):
    content = written("NIST")
    path = tmp_path / "a.sph"
    path.write_bytes(content.replace(b"sample_count", b"simple_count"))
    with pytest.raises(UserError, match="a.sph: its header does not say how many samples it has; fetch it again"):
        audio.header(path)
    compressed = content[:-2000].replace(b"sample_coding -s3 pcm\n", b"sample_coding -s26 pcm,embedded-shorten-v2.00\n")
    path.write_bytes(compressed)
    with pytest.raises(UserError, match="a.sph: cannot be read as a recording"):  # and not that it was cut
        audio.header(path)


def test_chunks_that_lie_about_their_length_end(tmp_path):
    """No endless loop, and no seeking to where nothing is: a chunk in front of the samples."""
    caf = b"caff\0\1\0\0" + struct.pack(">4sq", b"free", -12) + written("CAF")[8:]
    w64 = written("W64")
    for length in (0, 2**63, 2**64 - 1):
        assert containers.promise(io.BytesIO(w64[:40] + b"x" * 16 + struct.pack("<Q", length) + w64[40:])) is None
    for length in (-12, 2**63 - 1):
        assert containers.promise(io.BytesIO(caf.replace(struct.pack(">q", -12), struct.pack(">q", length)))) is None
