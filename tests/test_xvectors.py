"""X-vectors from Kaldi's archives: kaldiio's, and bytes and text as Kaldi writes them; faults are named."""

import pickle
import struct
from pathlib import Path

import kaldiio
import numpy as np
import pytest

from ser.archive import write_archive
from ser.cli import UserError
from ser.inputs import xvectors

UTTS = ["a-1", "a-2", "b-1"]


@pytest.fixture
def vectors():
    rng = np.random.default_rng(1)
    return {utt: rng.standard_normal(512).astype(np.float32) for utt in UTTS}


@pytest.fixture
def scp(tmp_path, vectors):
    """A table as kaldiio writes it."""
    return write(tmp_path, vectors)


def write(folder, vectors, kind="ark,scp"):
    with kaldiio.WriteHelper(f"{kind}:{folder}/xvector.ark,{folder}/xvector.scp") as writer:
        for utt, vector in vectors.items():
            writer(utt, vector)
    return folder / "xvector.scp"


def is_read(scp, vectors, **tolerance):
    """Whether these are read, in this order, as float32."""
    found = xvectors.read_scp(scp, list(vectors))
    assert list(found) == list(vectors)
    for utt, vector in vectors.items():
        assert found[utt].dtype == np.float32
        np.testing.assert_allclose(found[utt], vector, **{"rtol": 0, **tolerance})


def test_kaldiios_are_read(scp, vectors):
    is_read(scp, vectors)
    is_read(str(scp), {utt: vectors[utt] for utt in ("b-1", "a-1")})  # some, in the order that is asked for
    assert xvectors.read_scp(scp, iter([])) == {}


def test_doubles_are_read(tmp_path, vectors):
    is_read(write(tmp_path, {utt: vector.astype(np.float64) for utt, vector in vectors.items()}), vectors)


def test_text_is_read(tmp_path, vectors):
    is_read(write(tmp_path, vectors, "ark,t,scp"), vectors, rtol=1e-6)


def test_ours_are_read_by_kaldiio_and_by_ours(tmp_path, vectors):
    assert write_archive(tmp_path / "new folder/xvector.ark", vectors.items()) == dict.fromkeys(UTTS, 512)
    scp = tmp_path / "new folder/xvector.scp"
    is_read(scp, vectors)
    found = dict(kaldiio.load_scp(str(scp), separator=" "))
    assert found.keys() == vectors.keys() and all(np.array_equal(found[utt], vectors[utt]) for utt in vectors)


def test_our_bytes_are_kaldis(tmp_path):
    """kaldi-vector.cc, Write: "\\0B", "FV ", then the size after its own in bytes."""
    write_archive(tmp_path / "xvector.ark", [("u-1", np.array([1, 2, 3], np.float32))])
    assert (tmp_path / "xvector.ark").read_bytes() == b"u-1 \0BFV \x04" + struct.pack("<i", 3) + struct.pack(
        "<3f", 1, 2, 3
    )
    assert (tmp_path / "xvector.scp").read_text() == f"u-1 {tmp_path}/xvector.ark:4\n"


@pytest.mark.parametrize(
    "content",
    [
        b"\0BFV \x04" + struct.pack("<i", 3) + struct.pack("<3f", 0, -1e-5, 2.5),
        b"\0BDV \x04" + struct.pack("<i", 3) + struct.pack("<3d", 0, -1e-5, 2.5),
        b" [ 0 -1e-05 2.5 ]\n",  # the first looks like a whole number
        b" [ 0 -1e-05 2.5 ]",
        b" [ 0 -1e-05 2.5 ]\r\n",
    ],
)
def test_bytes_as_kaldi_writes_them(tmp_path, content):
    """In two archives, whose tables extract_xvectors.sh puts one after the other."""
    (tmp_path / "xvector.1.ark").write_bytes(b"a-1 " + content + b"a-2 " + content)
    (tmp_path / "xvector.2.ark").write_bytes(b"b-1 " + content)
    places = f"a-1 {tmp_path}/xvector.1.ark:4\na-2 {tmp_path}/xvector.1.ark:{8 + len(content)}\nb-1 {tmp_path}/xvector.2.ark:4\n"
    if content.endswith(b"]"):  # no line end: the last of its archive
        places = places.replace("xvector.1.ark:4", "xvector.2.ark:4")
    (tmp_path / "xvector.scp").write_text(places)
    is_read(tmp_path / "xvector.scp", dict.fromkeys(UTTS, np.array([0, -1e-5, 2.5], np.float32)))


def refused(scp, utts=UTTS):
    with pytest.raises(UserError) as error:
        xvectors.read_scp(scp, utts)
    message = str(error.value)
    assert "\n" not in message and "; " in message
    return message


def test_utterances_without_one(scp):
    assert refused(scp, ["a-1", "c-2", "a-2", "c-1"]) == (
        f"{scp}: 2 of 4 utterances have no x-vector, the first is c-2; extract them with python -m ser.dump_xvectors or with Kaldi, "
        "which skips utterances without speech: set their frames to 1 in its vad.scp"
    )


def test_no_table(tmp_path):
    assert refused(tmp_path / "xvector.scp").startswith(f"{tmp_path}/xvector.scp: no such table; extract them with")


def test_vectors_of_two_sizes(tmp_path, vectors):
    scp = write(tmp_path, vectors | {"a-2": np.zeros(400, np.float32)})
    message = refused(scp)
    assert message.startswith(f"{tmp_path}/xvector.ark:")
    assert message.endswith(": the x-vector of a-2 has 400 values, that of a-1 512; extract all with one network")
    assert xvectors.read_scp(scp, ["a-1", "b-1"]).keys() == {"a-1", "b-1"}  # what is not asked for is left alone


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["ark,scp", "ark,t,scp"])
def test_values_that_are_not_finite(tmp_path, vectors, kind, value):
    vectors["a-2"][7] = value
    assert refused(write(tmp_path, vectors, kind)).endswith(
        ": the x-vector of a-2 has infinite or undefined values; extract it again"
    )


@pytest.mark.parametrize("content", [b"\0BFV \x04\0\0\0\0", b" [ ]\n"])
def test_vectors_of_no_values(tmp_path, content):
    (tmp_path / "x.ark").write_bytes(content)
    (tmp_path / "xvector.scp").write_text(f"a-1 {tmp_path}/x.ark:0\n")
    assert "the x-vector of a-1 has no values; " in refused(tmp_path / "xvector.scp", ["a-1"])


@pytest.mark.parametrize("kind", ["ark,scp", "ark,t,scp"])
def test_an_archive_cut_short_anywhere(tmp_path, kind):
    vectors = {utt: np.arange(5, dtype=np.float32) + 0.5 for utt in UTTS}
    scp = write(tmp_path, vectors, kind)
    ark = tmp_path / "xvector.ark"
    content = ark.read_bytes()
    end = content.rindex(b"]") + 1 if "t" in kind.split(",") else len(content)
    for size in range(end):
        ark.write_bytes(content[:size])
        assert "cannot read the vector of " in refused(scp)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"these are words, " * 100, "not a vector"),
        (b"[ 1 2\n 3 4 ]\n", "not a vector"),  # a matrix
        (b"[ 1 2 many ]\n", "could not convert string to float: b'many'"),
        (b"\0BFM \x04\1\0\0\0\x04\1\0\0\0\0\0\0\0", "a matrix"),
        (b"\0BFV \x04\2\0\0\0\0\0\0\0", "cut short"),
        (b"\0B\x04\1\0\0\0\x04\7\0\0\0", "Unexpected format"),  # whole numbers
        (b"\0B" + b"x" * 5000, "Unexpected format"),
        (b"", "not a vector"),
        (b"NPY" + bytes(100), "not a vector"),
    ],
)
def test_an_archive_that_is_something_else(tmp_path, content, reason):
    (tmp_path / "x.ark").write_bytes(content)
    (tmp_path / "xvector.scp").write_text(f"a-1 {tmp_path}/x.ark:0\n")
    message = refused(tmp_path / "xvector.scp", ["a-1"])
    assert message.startswith(f"{tmp_path}/x.ark:0: cannot read the vector of a-1 (") and reason in message
    assert (
        message.endswith(
            f"); correct its path in {tmp_path}/xvector.scp, which is relative to this folder, or extract it again"
        )
        and len(message) < 500
    )


def test_an_archive_that_is_gone(scp):
    (scp.parent / "xvector.ark").unlink()
    message = refused(scp)
    assert (
        message.startswith(f"{scp.parent}/xvector.ark:4: cannot read the vector of a-1 ([Errno 2] No such file")
        and "path" in message
    )


class Payload:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize(
    "place",
    [
        "bad.ark:0",
        "bad.ark",
        "touch ran |",
        "| touch ran",
        "touch ran:1 |  ",
        "touch ran |:0",
        "-",
        "bad.ark:0[0:1]",
        "",
    ],
)
def test_nothing_is_executed(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    Path("bad.ark").write_bytes(b"PKL" + pickle.dumps(Payload()))
    Path("xvector.scp").write_text(f"a-1 {place}\n")
    assert "a-1" in refused("xvector.scp", ["a-1"])
    assert not Path("ran").exists()


def test_archives_that_are_there(scp):
    """What else may stand in a table is left aside, also a name that no file can have."""
    place = f"{scp.parent}/xvector.ark:4\n"
    scp.write_text(f"a-1 {place}a-2 {place}b-1 {'x' * 5000}:4\nb-2 no.ark:4\n")
    assert xvectors.archives(scp) == [scp.parent / "xvector.ark"]


def test_the_speakers_vectors_are_not_the_utterances(tmp_path, vectors):
    """Kaldi's spk_xvector.scp, given by mistake."""
    assert "3 of 3 utterances have no x-vector" in refused(write(tmp_path, {"a": vectors["a-1"], "b": vectors["b-1"]}))
