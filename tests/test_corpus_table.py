"""A corpus as a CSV table, up to the data directory that stage 0 writes and checks."""

import csv

import numpy as np
import pytest
import soundfile

from ser import corpus_table, prepare_data, validate_data
from ser.cli import UserError
from ser.datadir import read_table

HEAD = "path,speaker,emotion"
NAMES = ("wav/one.wav", "wav/two.wav", "other/one.wav")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(1000), 8000)
    return tmp_path


def prepare(folder, text):
    (folder / "table.csv").write_bytes(text.encode())
    prepare_data.main(["any", str(folder / "table.csv"), str(folder / "data")])
    validate_data.main([str(folder / "data")])
    return {path.name: read_table(path) for path in (folder / "data").iterdir() if path.name != "report.txt"}


def test_the_tables(folder, capsys):
    """As written by Python's own csv module, with quotes, a comma and a line break in a cell, and the mark of Excel."""
    rows = [
        ("emotion", "path", "text", "speaker", "sex", "sentence", "place"),
        ("happy", "wav/one.wav", 'She said "yes",\nthen left', "ann", "F", "s1", "at home"),
        ("sad", "wav/two.wav", "", "bob", "male", "s1", "street"),
        ("happy", str(folder / "other/one.wav"), "yes", "ann", "female", "s2", "street"),
    ]
    with open(folder / "rows.csv", "w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream).writerows(rows)
    tables = prepare(folder, (folder / "rows.csv").read_bytes().decode())
    elsewhere = f"ann-{str(folder).strip('/').replace('/', '-')}-other-one"
    utts = sorted(["ann-wav-one", elsewhere, "bob-wav-two"])
    assert list(tables["utt2spk"]) == utts and tables["utt2spk"][elsewhere] == "ann"
    assert tables["wav.scp"]["ann-wav-one"] == str(folder / "wav/one.wav")
    assert tables["text"]["ann-wav-one"] == 'She said "yes", then left' and tables["text"]["bob-wav-two"] == ""
    assert tables["utt2emo"] == {"ann-wav-one": "happy", elsewhere: "happy", "bob-wav-two": "sad"}
    assert tables["spk2gender"] == {"ann": "f", "bob": "m"}
    assert tables["utt2sent"] == {"ann-wav-one": "s1", elsewhere: "s2", "bob-wav-two": "s1"}
    assert tables["utt2place"]["ann-wav-one"] == "at home"
    assert "3 utterances, 2 speakers (1 f, 1 m), 2 classes" in capsys.readouterr().out


@pytest.mark.parametrize("head", [HEAD, f"{HEAD},sex"])
def test_a_sex_that_is_not_known_leaves_out_the_table(folder, capsys, head):
    more = ("", "") if head == HEAD else (",f", ",")
    tables = prepare(folder, f"{head}\nwav/one.wav,ann,sad{more[0]}\n\nwav/two.wav,bob,happy{more[1]}\n")
    assert "spk2gender" not in tables and tables.keys() >= {"spk2utt", "text"}
    shown = capsys.readouterr().out
    assert ("(0 f, 0 m, 2 unknown: no spk2gender)" if head == HEAD else "(1 f, 0 m, 1 unknown: no spk2gender)") in shown


FAULTS = {
    "no column": ("path,emotion\nwav/one.wav,sad\n", ":1: no column speaker; the first line should name the columns"),
    "semicolons": ("path;speaker;emotion\n", ":1: no column path; the first line should name"),
    "nothing": ("", ":1: no column path; "),
    "no line": (f"{HEAD}\n", ": names no recording; add a line for each"),
    "a column twice": (f"{HEAD},session,sess\n", ":1: the column sess occurs twice; remove one"),
    "a column of ours": (f"{HEAD},md5\n", ":1: a column cannot be called 'md5'; use another name"),
    "a column without a name": (f"{HEAD},\n", ":1: a column cannot be called ''; use another name"),
    "an empty cell": (f"{HEAD}\nwav/one.wav,ann,sad\nwav/two.wav,,sad\n", ":3: speaker: empty; fill it in"),
    "an empty further cell": (f"{HEAD},room\nwav/one.wav,ann,sad,\n", ":2: room: empty; fill it in"),
    "a path twice": (
        f"{HEAD}\nwav/one.wav,ann,sad\nwav/two.wav,ann,sad\nother/../wav/one.wav,bob,sad\n",
        ":4: {folder}/other/../wav/one.wav is also on line 2; remove one of the lines",
    ),
    "no file": (f"{HEAD}\nwav/six.wav,ann,sad\n", ":2: path: there is no file {folder}/wav/six.wav; correct it, or"),
    "a folder": (f"{HEAD}\nwav,ann,sad\n", ":2: path: there is no file {folder}/wav; "),
    "two words": (f"{HEAD}\nwav/one.wav,Ann B,sad\n", ":2: speaker: 'Ann B' should be one word; write Ann_B"),
    "a sex": (f"{HEAD},sex\nwav/one.wav,ann,sad,x\n", ":2: sex: x; write f or m, or leave it empty"),
    "two sexes": (
        f"{HEAD},sex\nwav/one.wav,ann,sad,f\nwav/two.wav,ann,sad,\n",
        ":3: sex: ann has another on a line before; correct one of them",
    ),
    "a cell too many": (
        f"{HEAD},text\nwav/one.wav,ann,sad,yes, no\n",
        ":2: 5 cells, but the first line names 4 columns; put a cell with commas in quotes",
    ),
    "an open quote": (f'{HEAD}\nwav/one.wav,ann,"sad\n', ":2: not CSV: unexpected end of data; put cells with commas or"),
    "after a cell of two lines": (f'{HEAD},text\nwav/one.wav,ann,sad,"a\nb"\nwav/two.wav,ann,,c\n', ":4: emotion: empty;"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(folder, fault):
    text, told = FAULTS[fault]
    with pytest.raises(UserError) as error:
        prepare(folder, text)
    message = str(error.value)
    assert message.startswith(f"{folder}/table.csv" + told.replace("{folder}", str(folder)))
    assert "\n" not in message and not (folder / "data").exists()


def test_what_is_no_text_is_no_table(folder):
    with pytest.raises(UserError, match=r"one\.wav: "):
        corpus_table.utterances(folder / "wav/one.wav")


def test_paths_that_give_the_same_id_are_refused(folder):
    soundfile.write(folder / "wav-one.wav", np.zeros(1000), 8000)
    with pytest.raises(UserError, match="has the same utterance id, ann-wav-one, as"):
        prepare(folder, f"{HEAD}\nwav/one.wav,ann,sad\nwav-one.wav,ann,sad\n")
