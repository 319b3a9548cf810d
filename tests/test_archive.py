"""Kaldi's ark/scp: ours read by kaldiio, kaldiio's read by ours, and broken ones named."""

import pickle
import struct
from pathlib import Path

import kaldiio
import numpy as np
import pytest

from ser.archive import Features, write_archive
from ser.cli import UserError
from ser.datadir import read_table


@pytest.fixture
def matrices():
    rng = np.random.default_rng(1)
    return {
        utt: rng.standard_normal((frames, 3)).astype(np.float32)
        for utt, frames in (("b-1", 5), ("a-1", 1), ("a-2", 40))
    }


@pytest.fixture
def folder(tmp_path, matrices):
    """A feature's folder as kaldiio writes it."""
    with kaldiio.WriteHelper(f"ark,scp:{tmp_path}/feats.ark,{tmp_path}/feats.scp") as writer:
        for utt in sorted(matrices):
            writer(utt, matrices[utt])
    (tmp_path / "utt2num_frames").write_text("".join(f"{utt} {len(matrices[utt])}\n" for utt in sorted(matrices)))
    return tmp_path


def equal(read, matrices):
    return read.keys() == matrices.keys() and all(
        read[utt].dtype == np.float32 and np.array_equal(read[utt], matrices[utt]) for utt in matrices
    )


def test_ours_is_read_by_kaldiio(tmp_path, matrices):
    ark = tmp_path / "new folder/feats.1.ark"  # a space, and a point, in the way
    assert write_archive(ark, matrices.items()) == {"b-1": 5, "a-1": 1, "a-2": 40}
    assert equal(dict(kaldiio.load_ark(str(ark))), matrices)
    lines = (tmp_path / "new folder/feats.1.scp").read_text().splitlines()
    assert [line.split(" ")[0] for line in lines] == ["a-1", "a-2", "b-1"]  # sorted, though written in another order
    assert sorted(path.name for path in ark.parent.iterdir()) == ["feats.1.ark", "feats.1.scp"]


def test_our_index_is_read_by_kaldiio(tmp_path, matrices):
    write_archive(tmp_path / "feats.ark", matrices.items())
    assert equal(dict(kaldiio.load_scp(str(tmp_path / "feats.scp"))), matrices)


def test_the_bytes_are_kaldis(tmp_path):
    """kaldi-matrix.cc, Write: "\\0B", "FM ", then rows and columns, each after its size in bytes."""
    write_archive(tmp_path / "feats.ark", [("u-1", np.array([[1, 2, 3], [4, 5, 6]], np.float32))])
    expected = (
        b"u-1 \0BFM \x04" + struct.pack("<i", 2) + b"\x04" + struct.pack("<i", 3) + struct.pack("<6f", 1, 2, 3, 4, 5, 6)
    )
    assert (tmp_path / "feats.ark").read_bytes() == expected
    assert (tmp_path / "feats.scp").read_text() == f"u-1 {tmp_path}/feats.ark:4\n"


def test_kaldiios_is_read_by_ours(folder, matrices):
    features = Features(folder)
    assert equal({utt: features[utt] for utt in features.index}, matrices)
    assert features.dimension == 3
    assert features.lengths_of(["a-2", "b-1"]) == {"a-2": 40, "b-1": 5}


def test_an_utterance_that_comes_twice(tmp_path, matrices):
    pairs = [*matrices.items(), ("a-1", matrices["a-1"])]
    with pytest.raises(UserError, match=r"feats\.ark: utterance a-1 occurs twice; make its id unique"):
        write_archive(tmp_path / "feats.ark", pairs)
    assert list(tmp_path.iterdir()) == []  # no archive, and no index of one


def test_an_utterance_without_features(folder):
    features = Features(folder)
    with pytest.raises(UserError, match=r"feats\.scp: no features for c-1; run stage 2 again"):
        features["c-1"]
    with pytest.raises(UserError, match=r"feats\.scp: no features for c-1; run stage 2 again"):
        features.lengths_of(["a-1", "c-1"])


def test_a_folder_without_features(tmp_path):
    with pytest.raises(UserError, match=r"feats\.scp: no such table"):
        Features(tmp_path)


def test_an_archive_that_is_gone(folder):
    (folder / "feats.ark").unlink()
    with pytest.raises(UserError, match=r"feats\.ark:\d+: cannot read the features of a-1 .*run stage 2 again"):
        Features(folder)["a-1"]


def test_an_archive_cut_short_anywhere(folder, matrices):
    ark = folder / "feats.ark"
    content, features = ark.read_bytes(), Features(folder)
    offsets = {utt: int(place.rpartition(":")[2]) for utt, place in features.index.items()}
    refused = 0
    for size in range(0, len(content), 3):
        ark.write_bytes(content[:size])
        for utt, matrix in matrices.items():
            end = offsets[utt] + 15 + matrix.nbytes  # 15: the bytes before the values
            if end <= size:
                assert np.array_equal(features[utt], matrix)
                continue
            with pytest.raises(UserError) as error:
                features[utt]
            assert str(error.value).startswith(f"{ark}:{offsets[utt]}: cannot read the features of {utt} (")
            assert "\n" not in str(error.value)
            refused += 1
    assert refused > 100


class Payload:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("what", ["a pickle", "a command", "a command that ends in spaces"])
def test_nothing_in_an_archive_is_executed(folder, monkeypatch, what):
    monkeypatch.chdir(folder)
    place = {
        "a pickle": f"{folder}/bad.ark:0",
        "a command": "touch ran |",
        "a command that ends in spaces": "touch ran:1 |  ",
    }[what]
    Path("bad.ark").write_bytes(b"PKL" + pickle.dumps(Payload()))
    Path("feats.scp").write_text(f"a-1 {place}\n")
    with pytest.raises(UserError) as error:
        Features(folder)["a-1"]
    assert "a-1" in str(error.value) and f"; remove {folder} and run stage 2 again" in str(error.value)
    assert not Path("ran").exists()


def test_an_utterance_with_frames_of_another_size(folder):
    write_archive(folder / "other.ark", [("b-1", np.zeros((5, 4), np.float32))])
    index = {**read_table(folder / "feats.scp"), **read_table(folder / "other.scp")}
    (folder / "feats.scp").write_text("".join(f"{utt} {place}\n" for utt, place in index.items()))
    Features(folder)["a-2"]
    with pytest.raises(UserError) as error:
        Features(folder)["b-1"]
    message = f"{folder}/other.ark:4: b-1 has 4 values per frame, a-1 has 3; remove {folder} and run stage 2 again"
    assert str(error.value) == message


def test_columns_of_each_frame(folder, matrices):
    features = Features(folder, np.array([2, 0]))
    assert equal(
        {utt: features[utt] for utt in features.index}, {utt: matrix[:, [2, 0]] for utt, matrix in matrices.items()}
    )
    with pytest.raises(
        UserError, match=rf"feats.ark:4: a-1 has only 3 values per frame; remove {folder} and run stage 2 again"
    ):
        Features(folder, np.array([3, 0]))["a-1"]


def test_lengths_that_are_not_there(folder):
    for line in ("", "a-1\n", "a-1 x\n", "a-1 -1\n"):
        (folder / "utt2num_frames").write_text(line)
        with pytest.raises(UserError, match=f"{folder}/utt2num_frames: no valid length for a-1; remove"):
            Features(folder).lengths_of(["a-1"])


def test_an_empty_index(folder):
    (folder / "feats.scp").write_text("")
    with pytest.raises(UserError, match=f"{folder}/feats.scp: empty table; remove"):
        Features(folder)


def test_an_archive_that_is_something_else(folder):
    (folder / "feats.ark").write_bytes(b"these are words, " * 100)
    for utt in ("a-1", "a-2", "b-1"):
        with pytest.raises(UserError, match="cannot read the features of"):
            Features(folder)[utt]
