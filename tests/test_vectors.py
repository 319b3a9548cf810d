import gzip
import zipfile

import numpy as np
import pytest

from ser import dump_vectors
from ser.cli import UserError
from ser.text import tokens
from ser.vectors import read_vectors, select_vectors

GLOVE = """\
the 0.418 0.24968 -0.41242
, 0.013441 0.23682 -0.16899
n't 1 2 3
do -1e-3 .5 4.
. . . 0.1 0.2 0.3
at name@domain.com 0.3 0.2 0.1
Door 9 9 9
door 0.5 -0.25 0
the 7 7 7
été 0.1 0.2 0.3
"""


@pytest.fixture
def glove(tmp_path):
    (tmp_path / "glove.txt").write_text(GLOVE)
    return tmp_path / "glove.txt"


def test_the_vectors_of_some_words(glove):
    found = select_vectors(glove, {"the", "door", "n't", "at", "été", "nowhere"})
    assert found == {"the": "0.418 0.24968 -0.41242", "n't": "1 2 3", "door": "0.5 -0.25 0", "été": "0.1 0.2 0.3"}


def test_a_word_may_hold_spaces(glove):
    assert select_vectors(glove, {". . .", "at name@domain.com", "."}) == {
        ". . .": "0.1 0.2 0.3",
        "at name@domain.com": "0.3 0.2 0.1",
    }


def test_all_vectors_of_a_file(tmp_path):
    (tmp_path / "vectors.txt").write_text("do -1e-3 .5 4.\nété 1 2 3\n")
    vectors = read_vectors(tmp_path / "vectors.txt")
    assert list(vectors) == ["do", "été"]
    assert all(vector.dtype == np.float32 for vector in vectors.values())
    np.testing.assert_array_equal(list(vectors.values()), np.float32([[-1e-3, 0.5, 4], [1, 2, 3]]))


def test_packed_files_are_read(glove, tmp_path):
    with gzip.open(tmp_path / "glove.gz", "wt", encoding="utf-8") as stream:
        stream.write(GLOVE)
    with zipfile.ZipFile(tmp_path / "glove.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("glove.txt", GLOVE)
    words = {"the", "door"}
    assert (
        select_vectors(tmp_path / "glove.gz", words)
        == select_vectors(tmp_path / "glove.zip", words)
        == select_vectors(glove, words)
    )


def test_fasttext_says_in_its_first_line_how_much_there_is(tmp_path):
    (tmp_path / "wiki.fr.vec").write_text("2 3\nporte 1 2 3 \nété 4 5 6 \n")
    assert select_vectors(tmp_path / "wiki.fr.vec", {"été"}) == {"été": "4 5 6"}
    assert list(read_vectors(tmp_path / "wiki.fr.vec")) == ["porte", "été"]


@pytest.mark.parametrize("size", [2, 3])
def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path, size):
    path = tmp_path / "vectors.txt"
    for head in ("", f"2 {size}\n"):
        path.write_text(f"\ufeff{head}the{' 1' * size}\ncat{' 2' * size}\n")
        assert select_vectors(path, {"the", "cat"}) == {"the": " ".join("1" * size), "cat": " ".join("2" * size)}
        assert list(read_vectors(path)) == ["the", "cat"]


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n \r\n\n"])
def test_blank_lines_at_the_end_are_no_matter(tmp_path, end):
    path = tmp_path / "vectors.txt"
    path.write_text(f"the 1 2 3\ncat 4 5 6{end}")
    assert select_vectors(path, {"the", "cat"}) == {"the": "1 2 3", "cat": "4 5 6"}
    assert list(read_vectors(path)) == ["the", "cat"]


REMEDY = "; give a file of word vectors as text, such as glove.6B.300d.txt"
WRONG = {
    "too few": ("a 1 2\nb 1\n", f":2: 1 values instead of 2{REMEDY}"),
    "too many": ("a 1 2\nb 1 2 3\n", f":2: 3 values instead of 2{REMEDY}"),
    "another word": ("x 1 2\nb 1 2\ny 1\n", f":3: 1 values instead of 2{REMEDY}"),  # it is not asked for
    "no number": ("a 1 2\nb 1 2.0.0\n", f":2: '2.0.0' is not a number{REMEDY}"),
    "not a number": ("a 1 nan\n", f":1: 'nan' is not a number{REMEDY}"),
    "infinite": ("a 1 2\nb 1 -inf\n", f":2: '-inf' is not a number{REMEDY}"),
    "two spaces": ("a 1 2\nb 1  2\n", f":2: 3 values instead of 2{REMEDY}"),
    "tabs": ("a\t1\t2\n", f":1: not a word and its values{REMEDY}"),
    "blank line": ("a 1 2\n\nb 1 2\n", f":2: blank line{REMEDY}"),
    "blank first line": ("\n\na 1 2\n", f":1: blank line{REMEDY}"),
    "no word": ("a 1 2\n 1 2\n", f":2: no word before its values{REMEDY}"),
    "more than float32 holds": ("a 1 2\nb 1 -1e39\n", f":2: '-1e39' is not a number{REMEDY}"),
    "Python's own numbers": ("a 1 2\nb 1 1_0\n", f":2: '1_0' is not a number{REMEDY}"),
    "no line ends": ("a 1 2\nb " + "0" * (1 << 20), f":2: a line of 1048576 bytes or more{REMEDY}"),
    "a table": ("a-1 some words\nb-1 more words\n", f":1: 'some' is not a number{REMEDY}"),
    "a web page": ("<html>\nnot found\n", f":1: not a word and its values{REMEDY}"),
    "empty": ("", ": contains no vectors; download it again, or give another file of word vectors"),
    "head alone": ("400000 300\n", ": contains no vectors; download it again, or give another file of word vectors"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_of_another_form(tmp_path, name):
    content, message = WRONG[name]
    path = tmp_path / "glove.txt"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        select_vectors(path, {"a", "b"})
    assert str(error.value) == f"{path}{message}"
    with pytest.raises(UserError) as error:
        read_vectors(path)
    assert str(error.value) == f"{path}{message}"


def test_a_binary_file(tmp_path):
    path = tmp_path / "word2vec.bin"
    path.write_bytes(
        b"2 3\nthe " + np.float32([0.1, 0.2, 0.3]).tobytes() + b"\ndoor " + np.float32([1, 2, 3]).tobytes() + b"\n"
    )
    with pytest.raises(UserError, match=r"word2vec.bin:2: .*; give a file of word vectors as text"):
        select_vectors(path, {"door"})


def test_a_word_that_is_not_utf8(tmp_path):
    (tmp_path / "vectors.txt").write_bytes(b"a 1 2\n\xe9 1 2\n")
    assert select_vectors(tmp_path / "vectors.txt", {"a", "é"}) == {"a": "1 2"}
    with pytest.raises(UserError, match="vectors.txt:2: not UTF-8"):
        read_vectors(tmp_path / "vectors.txt")


def test_files_that_are_missing_or_damaged(tmp_path):
    with pytest.raises(UserError, match="no.txt: no such file; give a file of word vectors"):
        select_vectors(tmp_path / "no.txt", {"a"})
    noise = np.random.default_rng(0).bytes(5000)
    (tmp_path / "short.gz").write_bytes(gzip.compress(b"a 1 2\n" + noise)[:3000])
    (tmp_path / "page.gz").write_bytes(b"<html>")
    (tmp_path / "page.zip").write_bytes(b"<html>")
    for name in ("short.gz", "page.gz", "page.zip"):
        with pytest.raises(UserError, match=f"{name}: damaged .*; download it again|{name}:2: .* values instead of 2"):
            select_vectors(tmp_path / name, {"a"})


def test_a_zip_of_several_files_has_to_be_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "glove.zip", "w") as archive:
        archive.writestr("50d.txt", GLOVE)
        archive.writestr("300d.txt", GLOVE)
    with pytest.raises(UserError, match="glove.zip: contains 2 files; unpack it and give one of them"):
        select_vectors(tmp_path / "glove.zip", {"a"})


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/text").write_text(
        "a-1 Don't, the door!\na-2\nb-1 [LAUGHTER] the doorman... Zoé\nb-2 the doorman\n"
    )
    return tmp_path / "data"


def dump(glove, data, capsys):
    dump_vectors.main(["--glove", str(glove), str(data), str(data / "out")])
    return capsys.readouterr().out


def test_the_vectors_of_a_corpus(glove, data, capsys):
    out = data / "out"
    assert dump(glove, data, capsys) == f"6 words, 4 with a vector; 33.3 % of 9 tokens have none ({out}/unknown)\n"
    assert (
        out / "vectors.txt"
    ).read_text() == "do -1e-3 .5 4.\ndoor 0.5 -0.25 0\nn't 1 2 3\nthe 0.418 0.24968 -0.41242\n"
    assert (out / "unknown").read_text() == "doorman 2\nzoé 1\n"
    assert sorted(path.name for path in out.iterdir()) == ["unknown", "vectors.txt"]
    assert select_vectors(out / "vectors.txt", tokens("The door")) == {
        "door": "0.5 -0.25 0",
        "the": "0.418 0.24968 -0.41242",
    }
    assert list(read_vectors(out / "vectors.txt")) == ["do", "door", "n't", "the"]


def test_what_was_heard_counts_too(glove, data, capsys):
    (data / "text_asr").write_text("a-1 DOUGH AT THE DOOR\na-2\nb-1 ADORE MAN\nb-2\n")
    assert dump(glove, data, capsys).startswith("10 words, 4 with a vector; 46.7 % of 15 tokens")
    assert (data / "out/unknown").read_text() == "doorman 2\nadore 1\nat 1\ndough 1\nman 1\nzoé 1\n"


def test_no_word_is_unknown(glove, data, capsys):
    (data / "text").write_text("a-1 the door\n")
    assert dump(glove, data, capsys).startswith("2 words, 2 with a vector; 0.0 % of 2 tokens")
    assert (data / "out/unknown").read_text() == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a-1 ...\na-2\n", "data/text: contains no words; "),
        ("a-1 ouvre la porte\n", "glove.txt: has none of the 3 words of .*data; use vectors for the corpus's language"),
        (None, "data/text: no such table"),
    ],
)
def test_nothing_to_write(glove, data, capsys, text, message):
    (data / "text").unlink() if text is None else (data / "text").write_text(text)
    with pytest.raises(UserError, match=message):
        dump(glove, data, capsys)
    assert not (data / "out").exists()


def test_vectors_of_another_make_are_left_alone(glove, data, capsys):
    """GloVe's own programs write vectors.txt too."""
    own = data / "out/vectors.txt"
    own.parent.mkdir()
    own.write_text("do 1 2\n")
    for source in (glove, own):
        with pytest.raises(UserError, match=f"{own}: is the input, or was not written by this command; use another"):
            dump(source, data, capsys)
    (data / "out/unknown").touch()
    with pytest.raises(UserError, match=f"{own}: is the input, or was not written"):
        dump(own, data, capsys)
    assert own.read_text() == "do 1 2\n"
    dump(glove, data, capsys)
    assert own.read_text() != "do 1 2\n"


def test_a_bad_file_leaves_what_is_there(glove, data, capsys):
    dump(glove, data, capsys)
    before = (data / "out/vectors.txt").read_bytes()
    glove.write_text(GLOVE + "doorman 1 2\n")
    with pytest.raises(UserError, match="glove.txt:11: 2 values instead of 3"):
        dump(glove, data, capsys)
    assert (data / "out/vectors.txt").read_bytes() == before
    assert sorted(path.name for path in (data / "out").iterdir()) == ["unknown", "vectors.txt"]
