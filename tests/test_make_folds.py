"""Stage 1: the folds of a protocol, and what their parts share."""

import hashlib
import itertools
import math
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from ser import folds, make_folds
from ser.cli import UserError
from ser.config import Adapt, Protocol, check, read_protocol, read_yaml

SPEAKERS = [f"s{number}" for number in range(1, 8)]
EMOTIONS = ["angry", "calm", "happy", "sad"]
SENTENCES = ["1", "2", "3"]
CLASSES = "{low: [calm, sad], high: [angry]}"  # happy is left out
PARTS = ("train", "dev", "test")


def write_tables(data, rows):
    """rows: (utt, speaker, emotion, sentence, MD5)."""
    data.mkdir(exist_ok=True)
    for column, name in enumerate(("utt2spk", "utt2emo", "utt2sent", "utt2md5"), 1):
        (data / name).write_text("".join(f"{row[0]} {row[column]}\n" for row in sorted(rows)))


@pytest.fixture
def data(tmp_path):
    """Seven speakers say three sentences in four emotions; each sad recording is its calm one again."""
    rows = [
        (f"{spk}-{emo}-{sent}", spk, emo, sent, f"{spk}{sent}{'calm' if emo == 'sad' else emo}")
        for spk, emo, sent in itertools.product(SPEAKERS, EMOTIONS, SENTENCES)
    ]
    write_tables(tmp_path / "data", rows)
    return tmp_path / "data"


def run(data, folds_text, select="dev", classes=CLASSES):
    """Make folds; return the parts of each fold as they stand in the files: {utt: class}."""
    protocol = data.parent / "protocol.yaml"
    protocol.write_text(f"description: d\nclasses: {classes}\nfolds: {folds_text}\nselect: {select}\n")
    dest = data.parent / "folds/protocol"
    make_folds.main([str(protocol), str(data), str(dest)])
    result = []
    for number in range(1, len(list(dest.glob("fold*"))) + 1):
        parts = []
        for part in PARTS:
            lines = (dest / f"fold{number}" / part).read_text().splitlines()
            assert lines == sorted(lines)
            parts.append(dict(line.split(" ") for line in lines))
        result.append(tuple(parts))
    return result


def table(data, name):
    return dict(line.split(" ") for line in (data / name).read_text().splitlines())


def chosen(data):
    """What the protocol takes: {utt: class}."""
    of = {"calm": "low", "sad": "low", "angry": "high"}
    return {utt: of[emo] for utt, emo in table(data, "utt2emo").items() if emo in of}


def fails(data, *arguments, **options):
    with pytest.raises(UserError) as error:
        run(data, *arguments, **options)
    return str(error.value).replace(f"{data.parent}/", "")


@pytest.mark.parametrize("number", [3, 5, 7])
def test_groups_each_speaker_is_tested_once_and_the_parts_share_none(data, number):
    made = run(data, f"{{kind: groups, by: spk, number: {number}}}")
    assert len(made) == number
    utt2spk = table(data, "utt2spk")
    tested = Counter()
    for train, dev, test in made:
        assert {**train, **dev, **test} == chosen(data)
        speakers = [{utt2spk[utt] for utt in part} for part in (train, dev, test)]
        assert all(speakers)
        assert sum(map(len, speakers)) == len(set.union(*speakers)) == len(SPEAKERS)
        tested.update(speakers[2])
    assert tested == Counter(SPEAKERS)
    sizes = sorted(len({utt2spk[utt] for utt in test}) for _, _, test in made)
    assert sizes[-1] - sizes[0] <= 1  # as even as they can be


def test_groups_the_next_folds_test_part_is_the_development_set(data):
    made = run(data, "{kind: groups, by: spk, number: 3}")
    assert [dev for _, dev, _ in made] == [made[1][2], made[2][2], made[0][2]]


@pytest.mark.parametrize("select", ["test", "last"])
def test_groups_without_a_development_set(data, select):
    for train, dev, test in run(data, "{kind: groups, by: sent, number: 2}", select):
        assert dev == {}
        assert len(train) + len(test) == len(chosen(data))
        sentences = table(data, "utt2sent")
        assert not {sentences[utt] for utt in train} & {sentences[utt] for utt in test}


def speakers_of(data, made):
    """For each fold the speakers of train, dev and test."""
    utt2spk = table(data, "utt2spk")
    return [tuple({utt2spk[utt] for utt in part} for part in fold) for fold in made]


@pytest.mark.parametrize("select", ["dev", "test"])
def test_groups_that_test_twice(data, select):
    """Of seven parts the next but one selects, round the corner."""
    made = run(data, "{kind: groups, by: spk, number: 7, test_parts: 2}", select)
    ring = SPEAKERS * 2
    for number, (fold, (train, dev, test)) in enumerate(zip(made, speakers_of(data, made), strict=True)):
        assert test == set(ring[number : number + 2])
        assert dev == ({ring[number + 2]} if select == "dev" else set())
        assert train == set(SPEAKERS) - test - dev
        assert sum(map(len, fold)) == len(chosen(data))
    assert set(Counter(utt for _, _, test in made for utt in test).values()) == {2}


def test_groups_in_an_order_that_is_drawn(data):
    def parts(seed, more=""):
        return [
            test
            for _, _, test in speakers_of(data, run(data, f"{{kind: groups, by: spk, number: 3, seed: {seed}{more}}}"))
        ]

    drawn = [parts(seed) for seed in range(30)]
    assert parts(7) == drawn[7]
    for tests in drawn:
        assert sorted(spk for test in tests for spk in test) == SPEAKERS
        assert [len(test) for test in tests] == [3, 2, 2]
    assert set.union(*(tests[1] for tests in drawn)) == set(SPEAKERS)
    assert len({frozenset(tests[0]) for tests in drawn}) > 15  # of 35
    first, second, _ = parts(1)
    assert parts(1, ", dev: spk") == parts(1)
    made = speakers_of(data, run(data, "{kind: groups, by: spk, number: 3, test_parts: 2, seed: 1}", "test"))
    assert made[0][2] == first | second  # the same parts


@pytest.mark.parametrize("share", [0.2, 0.25, 0.01])
@pytest.mark.parametrize("select", ["dev", "test", "last"])
def test_random_sizes(data, share, select):
    if share == 0.01:  # one utterance could not hold both classes
        assert "use fewer folds or other classes" in fails(
            data, f"{{kind: random, number: 1, test_share: {share}, seed: 1}}", select
        )
        return
    total = len(SPEAKERS) * 3 * len(SENTENCES)
    held_out = math.ceil(share * total)
    for train, dev, test in run(data, f"{{kind: random, number: 2, test_share: {share}, seed: 1}}", select):
        assert {**train, **dev, **test} == chosen(data)
        assert len(test) == held_out
        assert len(dev) == (held_out if select == "dev" else 0)
        assert len(train) + len(dev) + len(test) == total


def test_random_the_seed_decides(data):
    def tests(seed, number=2):
        return [
            test
            for _, _, test in run(data, f"{{kind: random, number: {number}, test_share: 0.3, seed: {seed}}}", "test")
        ]

    first = tests(1)
    assert first[0] != first[1]
    assert tests(1) == first
    assert tests(1, number=3)[:2] == first  # one more fold changes none of the others
    assert not any(test in first for test in tests(2))


def test_random_every_utterance_may_be_drawn(data):
    drawn = Counter()
    for _, _, test in run(data, "{kind: random, number: 60, test_share: 0.3, seed: 1}", "test"):
        drawn.update(list(test))
    assert drawn.keys() == chosen(data).keys()
    assert min(drawn.values()) >= 60 * 0.3 - 4 * math.sqrt(60 * 0.3 * 0.7)
    assert max(drawn.values()) <= 60 * 0.3 + 4 * math.sqrt(60 * 0.3 * 0.7)


def test_classes_are_those_of_the_protocol_in_its_order(data):
    run(data, "{kind: groups, by: spk, number: 3}", classes="{zeal: [happy], anger: [angry, sad]}")
    fold = folds.read_fold(data.parent / "folds/protocol/fold2", data)
    assert fold.classes == ["zeal", "anger"]
    assert set(fold.train.values()) == set(fold.dev.values()) == set(fold.test.values()) == {"zeal", "anger"}
    targets = fold.targets()
    assert len(targets) == len(SPEAKERS) * 3 * len(SENTENCES)
    assert {targets[utt] for utt in targets if "happy" in utt} == {0}
    assert {targets[utt] for utt in targets if "happy" not in utt} == {1}


def test_overlap_of_sets_written_out(tmp_path, capsys):
    a, b, c = "a-1 a-2 a-3 a-4".split(), "b-1 b-2 b-3".split(), "c-1 c-2 c-3 c-4".split()
    sentences = {"a-1": "x", "a-2": "x", "a-3": "y", "a-4": "z", "b-1": "x", "b-2": "v", "b-3": "w"}
    sentences |= {"c-1": "y", "c-2": "y", "c-3": "w", "c-4": "u"}
    audio = {utt: utt for utt in a + b + c} | {"c-1": "a-1", "c-2": "a-1", "b-1": "c-4"}  # twins
    rows = [
        (utt, utt[0], "p" if index % 2 else "q", sentences[utt], audio[utt])
        for part in (a, b, c)
        for index, utt in enumerate(part)
    ]
    write_tables(tmp_path / "data", rows)
    run(tmp_path / "data", "{kind: groups, by: spk, number: 3}", classes="{p: [p], q: [q]}")
    lines = (tmp_path / "folds/protocol/fold1/overlap").read_text().splitlines()
    # fold 1 tests on a (x y z; audio a-1 to a-4), selects on b (x v w; c-4 b-2 b-3), trains on c (y w u; a-1 a-1 c-3 c-4)
    assert lines == [
        "train 4, dev 3, test 4",
        "train and test share 0 of 1 speakers, 1 of 3 sentences, 1 of 4 recordings",  # y; a-1
        "dev and test share 0 of 1 speakers, 1 of 3 sentences, 0 of 4 recordings",  # x
        "train and dev share 0 of 1 speakers, 1 of 3 sentences, 1 of 3 recordings",  # w; c-4
    ]
    printed = capsys.readouterr().out
    assert "fold 1: " + "\n        ".join(lines) + "\n" in printed
    assert folds.read_fold(tmp_path / "folds/protocol/fold1", tmp_path / "data").overlap == "; ".join(lines[:2])


def test_overlap_of_a_random_split(data):
    made = run(data, "{kind: random, number: 3, test_share: 0.2, seed: 3}", "test")
    for number, (train, _, test) in enumerate(made, 1):
        counts = []
        for name in ("utt2spk", "utt2sent"):
            of = table(data, name)
            tested = {of[utt] for utt in test}
            counts += [sum(any(of[utt] == value for utt in train) for value in tested), len(tested)]
        of = table(data, "utt2md5")
        twins = [utt for utt in test if any(of[utt] == of[other] for other in train)]
        assert twins  # or it would test nothing
        counts += [len(twins), len(test)]
        lines = (data.parent / f"folds/protocol/fold{number}/overlap").read_text().splitlines()
        assert lines == [
            f"train {len(train)}, test {len(test)}",
            "train and test share {} of {} speakers, {} of {} sentences, {} of {} recordings".format(*counts),
        ]


def test_a_cross_validation_of_utterances(data):
    """by: utt, of which there is no table."""
    made = run(data, "{kind: groups, by: utt, number: 5, seed: 2}")
    tests = [set(test) for _, _, test in made]
    assert sorted(utt for test in tests for utt in test) == sorted(chosen(data))
    assert max(map(len, tests)) - min(map(len, tests)) <= 1
    for number, (train, dev, test) in enumerate(made):
        assert set(dev) == tests[(number + 1) % 5]
        assert len(train) + len(dev) + len(test) == len(chosen(data))
    assert tests[0] != set(sorted(chosen(data))[: len(tests[0])])  # dealt out, not cut


def test_sentences_are_told_by_their_words_where_they_have_no_number(data):
    texts = ["the same words", "The same words?!", "the - same words."]
    (data / "text").write_text("".join(f"{utt} {texts[row % 3]}\n" for row, utt in enumerate(table(data, "utt2emo"))))
    (data / "utt2sent").unlink()
    run(data, "{kind: groups, by: spk, number: 3}")
    assert ", 1 of 1 sentences, " in (data.parent / "folds/protocol/fold1/overlap").read_text()


def test_dialogs_and_scenarios_are_counted_where_there_are_tables_of_them(data):
    for name, length in (("dialog", 2), ("scenario", 1)):  # of a speaker's two first sentences; of all sentences alike
        (data / f"utt2{name}").write_text(
            "".join(f"{utt} {utt[:2] if length == 2 else utt[-1]}\n" for utt in table(data, "utt2emo"))
        )
    run(data, "{kind: groups, by: scenario, number: 3}")
    line = (data.parent / "folds/protocol/fold1/overlap").read_text().splitlines()[1]
    assert line.startswith("train and test share 7 of 7 speakers, 0 of 1 sentences, 7 of 7 dialogs, 0 of 1 scenarios, ")


@pytest.mark.parametrize(
    ("folds_text", "select", "counted"),
    [
        ("{kind: groups, by: spk, number: 7}", "dev", "7 folds by spk; 7 speakers: train 5, dev 1, test 1"),
        ("{kind: groups, by: spk, number: 3}", "dev", "3 folds by spk; 7 speakers: train 2 to 3, dev 2 to 3, test 2 to 3"),
        ("{kind: groups, by: sent, number: 3}", "last", "3 folds by sent; 7 speakers: train 7, test 7; 3 values of sent: train 2, test 1"),
        ("{kind: groups, by: utt, number: 3, seed: 1}", "test", "3 folds by utt; 7 speakers: train 7, test 7"),
        ("{kind: random, number: 1, test_share: 0.5, seed: 1}", "test", "1 fold drawn at random; 7 speakers: train 7, test 7"),
    ],
)  # fmt: skip
def test_what_the_folds_are_is_counted(data, capsys, folds_text, select, counted):
    run(data, folds_text, select)
    assert capsys.readouterr().out.splitlines()[1] == counted


def test_folds_in_words_from_what_scores_keep(data):
    run(data, "{kind: groups, by: spk, number: 3}")
    overlaps = [folds.read_fold(data.parent / f"folds/protocol/fold{number}", data).overlap for number in (1, 2, 3)]
    assert folds.in_words(3, overlaps) == "3 folds; 2 to 3 test speakers each, none of them in the training part"
    assert folds.in_words(3, overlaps[:1]) == "3 folds; 3 test speakers each, none of them in the training part"
    assert folds.in_words(1, ["of an older version"]) == "1 fold"


def test_a_protocol_that_selects_on_the_test_set_is_told_of(data, capsys):
    run(data, "{kind: groups, by: spk, number: 3}", "dev")
    assert "NOTE" not in capsys.readouterr().out
    run(data, "{kind: groups, by: spk, number: 3}", "test")
    assert "NOTE: this protocol selects the model on the test set" in capsys.readouterr().out


def test_a_label_that_the_corpus_lacks(data):
    folds_text = "{kind: groups, by: spk, number: 3}"
    message = fails(data, folds_text, classes="{low: [sad], high: [angri]}")
    assert message == "protocol.yaml: classes: no utterance is labelled angri; did you mean angry?"
    message = fails(data, folds_text, classes="{low: [sad], high: [excited]}")
    assert message == "protocol.yaml: classes: no utterance is labelled excited; the corpus has angry, calm, happy, sad"


def test_labels_that_the_protocol_leaves_out_are_counted(data, capsys):
    run(data, "{kind: groups, by: spk, number: 3}")
    assert "speakers: train 2 to 3, dev 2 to 3, test 2 to 3\nleft out: happy 21\nfold 1: " in capsys.readouterr().out
    run(data, "{kind: groups, by: spk, number: 3}", classes="{low: [sad, calm], high: [angry, happy]}")
    assert "left out" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["utt2emo", "utt2sent"])
def test_a_table_that_lacks_an_utterance(data, name):
    lines = (data / name).read_text().splitlines(keepends=True)
    (data / name).write_text("".join(line for line in lines if "s2-sad-1" not in line))
    message = fails(data, "{kind: groups, by: sent, number: 3}")
    assert message == f"data/{name}: no line for s2-sad-1; add it, or run the stage that writes the table again"


def record(data, utts, twins):
    """Recordings of noise, told by their ids, but for twins, which have another's samples; and wav.scp."""
    for utt in utts:
        rng = np.random.default_rng(list(twins.get(utt, utt).encode()))
        soundfile.write(data / f"{utt}.wav", rng.uniform(-0.5, 0.5, 160).astype(np.float32), 8000, subtype="FLOAT")
    (data / "wav.scp").write_text("".join(f"{utt} {data}/{utt}.wav\n" for utt in sorted(utts)))


def test_identical_recordings_are_counted_where_the_table_of_checksums_is_missing(data, capsys):
    utts = table(data, "utt2emo")
    twins = {utt: utt.replace("sad", "calm") for utt in utts}
    run(data, "{kind: groups, by: sent, number: 3}", classes="{calm: [calm], sad: [sad]}")
    told = capsys.readouterr().out
    wanted = {path: path.read_text() for path in (data.parent / "folds").rglob("overlap")}
    assert len(wanted) == 3
    (data / "utt2md5").unlink()
    record(data, utts, twins)
    run(data, "{kind: groups, by: sent, number: 3}", classes="{calm: [calm], sad: [sad]}")
    line = f"{data}/utt2md5: computed from the recordings, {len(utts)} of {len(utts)} lines\n"
    assert capsys.readouterr().out == line + told
    assert {path: path.read_text() for path in wanted} == wanted
    md5s = table(data, "utt2md5")
    assert all(md5s[utt] == md5s[twin] for utt, twin in twins.items())
    assert len(set(md5s.values())) == len(set(twins.values()))
    samples, _ = soundfile.read(data / "s1-sad-1.wav", dtype="float32")
    assert md5s["s1-sad-1"] == hashlib.md5(samples.tobytes()).hexdigest()


def test_a_checksum_that_cannot_be_computed(data):
    (data / "utt2md5").unlink()
    message = fails(data, "{kind: groups, by: spk, number: 3}")
    assert message == "data/wav.scp: no such table; run the stage that writes it"
    record(data, table(data, "utt2emo"), {})
    (data / "s2-sad-1.wav").write_bytes(b"")
    assert fails(data, "{kind: groups, by: spk, number: 3}") == "data/s2-sad-1.wav: empty file; fetch it again"
    assert not (data.parent / "folds").exists() and not (data / "utt2md5").exists()


def tree(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


GROUPS = "{kind: groups, by: spk, number: 3}"


def test_one_that_was_stopped_while_it_replaced_folds_can_be_run_again(data, monkeypatch):
    wanted = run(data, GROUPS)
    run(data, "{kind: groups, by: spk, number: 7}")
    rename = Path.rename

    def stop(path, target):
        rename(path, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        run(data, GROUPS)
    monkeypatch.undo()
    assert run(data, GROUPS) == wanted
    assert os.listdir(data.parent / "folds") == ["protocol"]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["svm/honest/fold1_seed1/done"], "folds/protocol/svm: not written by stage 1, which would replace the whole folder folds/protocol"),
        (["classes", "fold1/train", "notes"], "folds/protocol/notes: not written by stage 1, which would replace the whole folder folds/protocol"),
        (["classes", "fold1/train", "fold1/mine"], "folds/protocol/fold1/mine: not written by stage 1, which would replace the whole folder folds/protocol"),
        (["fold1/train"], "folds/protocol: not the folds of stage 1, which would replace the whole folder"),
        (["classes"], "folds/protocol: not the folds of stage 1, which would replace the whole folder"),
    ],
)  # fmt: skip
def test_a_folder_of_something_else_is_left_alone(data, others, message):
    dest = data.parent / "folds/protocol"
    for name in others:
        (dest / name).parent.mkdir(parents=True, exist_ok=True)
        (dest / name).write_text("mine")
    before = tree(data.parent / "folds")
    assert fails(data, GROUPS) == f"{message}; give another folder, or move it away"
    assert tree(data.parent / "folds") == before


def test_a_file_in_the_place_of_the_folder(data):
    (data.parent / "folds").mkdir()
    (data.parent / "folds/protocol").write_text("mine")
    assert fails(data, GROUPS) == "folds/protocol: not a folder; give another folder, or move it away"
    assert (data.parent / "folds/protocol").read_text() == "mine"


def test_an_empty_folder_is_taken(data):
    (data.parent / "folds/protocol").mkdir(parents=True)
    assert len(run(data, GROUPS)) == 3


def test_a_folder_that_is_a_link(data):
    """As to another disk; the workplace is beside the link's target."""
    disk = data.parent / "disk"
    (disk / "target").mkdir(parents=True)
    (data.parent / "folds").mkdir()
    link = data.parent / "folds/protocol"
    link.symlink_to(disk / "target")
    run(data, "{kind: groups, by: spk, number: 7}")
    made = run(data, GROUPS)
    assert len(made) == 3 and folds.fold_numbers(disk / "target") == [1, 2, 3]
    assert link.is_symlink() and os.listdir(disk) == ["target"] and os.listdir(link.parent) == ["protocol"]


def test_the_folds_say_what_protocol_they_are_of(data):
    run(data, "{kind: random, number: 2, test_share: 0.25, seed: 1}\nwhere: {sent: ['1', '2']}")
    written = data.parent / "folds/protocol/protocol.yaml"
    assert check(Protocol, read_yaml(written), written) == read_protocol(data.parent / "protocol.yaml")


def test_too_many_and_too_few_folds(data):
    assert (
        fails(data, "{kind: groups, by: spk, number: 8}")
        == "protocol.yaml: folds.number: 8 folds by spk, but data/utt2spk has only 7 values; use fewer folds"
    )
    assert (
        fails(data, "{kind: groups, by: spk, number: 2}")
        == "protocol.yaml: folds.number: train, dev and test need at least 3 folds, not 2"
    )
    assert len(run(data, "{kind: groups, by: spk, number: 2}", "test")) == 2
    two = "{kind: groups, by: spk, number: %d, test_parts: 2}"
    assert fails(data, two % 3) == "protocol.yaml: folds.number: train, dev and test need at least 4 folds, not 3"
    assert fails(data, two % 2, "test") == "protocol.yaml: folds.number: train and test need at least 3 folds, not 2"
    assert len(run(data, two % 4)) == 4
    assert len(run(data, two % 3, "test")) == 3


def test_groups_of_a_table_that_is_not_there(data):
    assert fails(data, "{kind: groups, by: session, number: 3}") == (
        "protocol.yaml: folds.by: there is no data/utt2session; use one of emo, md5, sent, spk"
    )
    assert fails(data, "{kind: groups, by: sent, number: 3, dev: speaker}") == (
        "protocol.yaml: folds.dev: there is no data/utt2speaker; use one of emo, md5, sent, spk"
    )


def write_rooms(data):
    """Speakers sit in pairs: room 1 has s1 and s2, ... and s7 is alone in room 4."""
    (data / "utt2room").write_text(
        "".join(f"{utt} {(int(spk[1:]) + 1) // 2}\n" for utt, spk in table(data, "utt2spk").items())
    )


@pytest.mark.parametrize(("number", "selected"), [(4, "s3 s6 s7 s2"), (2, "s5 s2")])  # of rooms 2 3 4 1; of 34 and 12
def test_one_speaker_of_the_next_groups_is_the_development_set(data, number, selected):
    write_rooms(data)
    made = run(data, f"{{kind: groups, by: room, number: {number}, dev: spk}}")
    utt2spk, utt2room = table(data, "utt2spk"), table(data, "utt2room")
    for (train, dev, test), spk in zip(made, selected.split(), strict=True):
        assert {**train, **dev, **test} == chosen(data)
        assert len(train) + len(dev) + len(test) == len(chosen(data))
        assert {utt2spk[utt] for utt in dev} == {spk}
        assert not {utt2room[utt] for utt in test} & {utt2room[utt] for utt in [*train, *dev]}
        assert {utt2spk[utt] for utt in train} == set(SPEAKERS) - {spk} - {utt2spk[utt] for utt in test}
    assert {utt for _, _, test in made for utt in test} == chosen(data).keys()


def test_a_development_value_that_stands_in_the_test_set_too(data):
    """Then that value's utterances of the test set stay there, and none trains."""
    for train, dev, test in run(data, "{kind: groups, by: spk, number: 7, dev: sent}"):
        assert {**train, **dev, **test} == chosen(data)
        assert len(train) + len(dev) + len(test) == len(chosen(data)) and len(test) == 9
        sentences = table(data, "utt2sent")
        assert len({sentences[utt] for utt in dev}) == 1 and len({sentences[utt] for utt in train}) == 2


@pytest.mark.parametrize(
    "folds_text", ["{kind: groups, by: spk, number: 3}", "{kind: random, number: 2, test_share: 0.25, seed: 1}"]
)
def test_where_takes_only_these(data, folds_text, capsys):
    made = run(data, f"{folds_text}\nwhere: {{sent: ['1', '3'], spk: [s1, s2, s3, s4, s5, s6]}}")
    wanted = {utt: name for utt, name in chosen(data).items() if utt[-1] != "2" and not utt.startswith("s7")}
    assert len(wanted) == 6 * 3 * 2
    assert all({**train, **dev, **test} == wanted for train, dev, test in made)
    assert "left out: angry 9, calm 9, happy 21, sad 9\n" in capsys.readouterr().out


def test_where_and_labels_that_are_dealt_out(data):
    (parts,) = run(data, "{kind: random, number: 1, test_share: 0.25, seed: 1}\nwhere: {sent: ['1']}\nlabels: shuffled")
    assert Counter(name for part in parts for name in part.values()) == {"low": 14, "high": 7}  # as it was among those


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("{sent: ['1', '4']}", "where.sent: no utterance has 4; the corpus has 1, 2, 3"),
        ("{emo: [sadd]}", "where.emo: no utterance has sadd; did you mean sad?"),
        ("{cond: [improvised]}", "where: there is no data/utt2cond; use one of emo, md5, sent, spk"),
        (
            "{md5: [x]}",
            f"where.md5: no utterance has x; the corpus has {', '.join(sorted(f's{n}{s}{e}' for n in range(1, 8) for s in '123' for e in ('angry', 'calm', 'happy'))[:20])}, ...",
        ),
    ],
)
def test_where_of_what_is_not_there(data, where, message):
    assert fails(data, f"{{kind: groups, by: spk, number: 3}}\nwhere: {where}") == f"protocol.yaml: {message}"


def test_where_leaves_a_class_without_utterances(data):
    message = fails(data, "{kind: groups, by: spk, number: 3}\nwhere: {emo: [calm, sad]}")
    assert message == "protocol.yaml: folds: fold1: train has no utterance of high; use fewer folds or other classes"
    message = fails(data, "{kind: groups, by: spk, number: 3}\nwhere: {sent: ['1'], spk: [s1]}")
    assert message == "protocol.yaml: folds.number: 3 folds by spk, but data/utt2spk has only 1 values; use fewer folds"


def test_a_class_that_a_part_lacks(data):
    rows = [
        (f"{spk}-1", spk, emo, "1", spk)
        for spk, emo in zip(SPEAKERS, ["angry", "sad", "angry", "angry", "sad", "angry", "sad"], strict=True)
    ]
    write_tables(data, rows)
    classes = "{low: [sad], high: [angry]}"
    message = fails(data, "{kind: groups, by: spk, number: 7}", classes=classes)
    assert message == (
        "protocol.yaml: folds: fold1: dev has no utterance of high; use fewer folds or other classes, or `select: last`, "
        "which needs no dev"
    )
    made = run(data, "{kind: groups, by: spk, number: all}", "last", classes)  # pooled, the test parts have both
    assert [sorted(set(test.values())) for _, _, test in made] == [
        [name] for name in "high low high high low high low".split()
    ]


def test_a_class_that_dev_and_test_lack_is_told(data, capsys):
    """Speaker 1 is never angry, as in EmoDB no recording of speaker 08 is of disgust."""
    write_tables(
        data,
        [
            (utt, spk, emo, "1", utt)
            for utt, spk, emo in ((f"{spk}-{emo}-{n}", spk, emo) for spk in SPEAKERS for emo in EMOTIONS for n in "12")
            if (spk, emo) != ("s1", "angry")
        ],
    )
    made = run(data, "{kind: groups, by: spk, number: all}", classes=THREE)
    out = capsys.readouterr().out
    assert len(made) == 7
    assert [{utt[:2] for utt in test} for _, _, test in made] == [{spk} for spk in SPEAKERS]
    assert "fold 1: train 30, dev 6, test 4 (none of angry)\n" in out
    assert "fold 7: train 30, dev 4 (none of angry), test 6\n" in out
    assert (
        (data.parent / "folds/protocol/fold7/overlap")
        .read_text()
        .startswith("train 30, dev 4 (none of angry), test 6\n")
    )
    protocol = read_protocol(data.parent / "protocol.yaml")
    fold = folds.read_fold(data.parent / "folds/protocol/fold1", data, protocol)
    assert "angry" not in fold.test.values() and fold.overlap.startswith("train 30, dev 6, test 4 (none of angry); ")


def test_one_class_is_not_tested_alone(data):
    """The drawn utterance is of one class, and there is no other fold to pool it with."""
    message = fails(data, "{kind: random, number: 1, test_share: 0.01, seed: 1}", "last")
    assert message == "protocol.yaml: folds: only low is tested; use fewer folds or other classes"


def test_nothing_left_to_train(data):
    message = fails(data, "{kind: random, number: 1, test_share: 0.5, seed: 1}", "dev")
    assert "train has no utterance of" in message


def test_folds_are_replaced_whole_or_not_at_all(data):
    run(data, "{kind: groups, by: spk, number: 7}")
    dest = data.parent / "folds/protocol"

    def content():
        return {path.relative_to(dest): path.read_text() for path in dest.rglob("*") if path.is_file()}

    old = content()
    assert len(old) == 7 * 4 + 2
    fails(data, "{kind: groups, by: spk, number: 8}")
    fails(data, "{kind: random, number: 1, test_share: 0.01, seed: 1}")  # fails while it writes
    assert content() == old
    run(data, "{kind: groups, by: spk, number: 3}")
    assert len(content()) == 3 * 4 + 2  # of the seven none is left
    assert [path.name for path in dest.parent.iterdir()] == ["protocol"]
    assert folds.fold_numbers(dest) == [1, 2, 3]


def edit(data, part, old, new):
    path = data.parent / "folds/protocol/fold2" / part
    content = path.read_text()
    assert content.count(old) == 1
    path.write_text(content.replace(old, new))


@pytest.mark.parametrize(
    ("part", "old", "new", "message"),
    [
        ("dev", "s6-calm-1 low", "s6-calm-1 lwo", "dev:4: s6-calm-1 has the class 'lwo'; one of low, high"),
        ("dev", "s6-calm-1 low", "s6-calm-1", "dev:4: s6-calm-1 has the class ''; one of low, high"),
        ("test", "s4-calm-1 low", "s6-calm-1 low", "test:4: s6-calm-1 is also in dev; remove one of the lines"),
        (
            "dev",
            "s6-calm-1 low",
            "s9-calm-1 low",
            "dev:4: s9-calm-1 is not in data; remove the line or run stage 1 again",
        ),
    ],
)
def test_a_fold_that_a_hand_has_changed(data, part, old, new, message):
    run(data, "{kind: groups, by: spk, number: 3}")
    place = data.parent / "folds/protocol/fold2"
    folds.read_fold(place, data)
    edit(data, part, old, new)
    with pytest.raises(UserError) as error:
        folds.read_fold(place, data)
    assert str(error.value).replace(f"{data.parent}/", "") == f"folds/protocol/fold2/{message}"


@pytest.mark.parametrize(
    ("part", "label", "message"),
    [
        ("train", "high", "train: no utterance of high; add some or run stage 1 again"),
        ("test", "", "test: no utterance; add some or run stage 1 again"),
    ],
)
def test_a_fold_with_nothing_to_train_or_test(data, part, label, message):
    run(data, "{kind: groups, by: spk, number: 3}")
    path = data.parent / "folds/protocol/fold2" / part
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if label not in line))
    with pytest.raises(UserError) as error:
        folds.read_fold(path.parent, data)
    assert str(error.value) == f"{path.parent}/{message}"


def protocol_of(data, **changes):
    """What read_fold asks of a protocol."""
    protocol = read_protocol(data.parent / "protocol.yaml")
    return SimpleNamespace(
        **{"name": protocol.name, "classes": protocol.classes, "select": protocol.select, "adapt": None, **changes}
    )


def test_a_development_set_without_utterance(data):
    run(data, GROUPS)
    place = data.parent / "folds/protocol/fold2"
    folds.read_fold(place, data, protocol_of(data))
    (place / "dev").write_text("")
    with pytest.raises(UserError) as error:
        folds.read_fold(place, data, protocol_of(data))
    assert str(error.value) == f"{place}/dev: no utterance; add some or run stage 1 again"
    folds.read_fold(place, data, protocol_of(data, select="last"))


@pytest.mark.parametrize("classes", [["high", "low"], ["low"], ["low", "high", "more"]])
def test_folds_with_other_classes_than_the_protocol(data, classes):
    run(data, GROUPS)
    place = data.parent / "folds/protocol/fold2"
    with pytest.raises(UserError) as error:
        folds.read_fold(place, data, protocol_of(data, classes={key: [] for key in classes}))
    told = f"has the classes low, high, but the protocol protocol has {', '.join(classes)}; run stage 1 again"
    assert str(error.value) == f"{place.parent}/classes: {told}"


@pytest.mark.parametrize(
    "content", ["", "0 low\n2 high\n", "zero low\n1 high\n", "0 low\n1\n", "0 low\n1 low\n", "1 low\n2 high\n"]
)
def test_classes_that_a_hand_has_changed(data, content):
    run(data, GROUPS)
    place = data.parent / "folds/protocol/fold2"
    (place.parent / "classes").write_text(content)
    with pytest.raises(UserError) as error:
        folds.read_fold(place, data)
    assert (
        str(error.value)
        == f"{place.parent}/classes: should have the lines `0 class`, `1 class`, ..., each class once; run stage 1 again"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the second line should say what train and test share"),
        (b"train 1\n", "the second line should say what train and test share"),
        (b"train 1\n\xff\n", "not UTF-8 text"),
    ],
)
def test_an_overlap_that_is_missing_or_broken(data, content, message):
    run(data, GROUPS)
    path = data.parent / "folds/protocol/fold2/overlap"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError) as error:
        folds.read_fold(path.parent, data)
    assert str(error.value) == f"{path}: {message}; run stage 1 again"


def test_more_than_ten_classes_keep_their_order(tmp_path):
    names = [f"class{number}" for number in (5, 3, 9, 1, 12, 7, 2, 11, 8, 4, 10, 6)]
    write_tables(
        tmp_path / "data", [(f"{spk}-{name}", spk, name, "s", f"{spk}{name}") for spk in "abc" for name in names]
    )
    run(
        tmp_path / "data",
        "{kind: groups, by: spk, number: 3}",
        classes=f"{{{', '.join(f'{name}: [{name}]' for name in names)}}}",
    )
    assert folds.read_fold(tmp_path / "folds/protocol/fold1", tmp_path / "data").classes == names


def test_folds_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="contains no folds; run stage 1"):
        folds.fold_numbers(tmp_path)


def test_ten_folds_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "2", "1", "3.bak", "s", "04"):
        (tmp_path / f"fold{name}").mkdir()
    assert folds.fold_numbers(tmp_path) == [1, 2, 10]


def test_shuffled_labels_are_dealt_out_again(data, capsys):
    groups = "{kind: groups, by: spk, number: 3}"
    own = run(data, groups)
    shuffled = run(data, f"{groups}\nlabels: shuffled")
    assert "shuffles the labels" in capsys.readouterr().out
    for before, after in zip(own, shuffled, strict=True):
        assert [set(part) for part in before] == [set(part) for part in after]  # the same utterances
    before, after = ({utt: name for part in fold for utt, name in part.items()} for fold in (own[0], shuffled[0]))
    assert Counter(before.values()) == Counter(after.values())
    agree = sum(before[utt] == after[utt] for utt in before) / len(before)
    assert agree < 0.75  # two thirds are low: by chance 5 of 9 agree
    again = run(data, f"{groups}\nlabels: shuffled")
    assert again == shuffled


def test_folds_that_are_the_same_stay_as_they_are(data):
    """Another process may read them now."""
    folds_text = "{kind: groups, by: spk, number: 7}"
    place = data.parent / "folds/protocol"

    def times():
        return {path: path.stat().st_mtime_ns for path in [place, *place.rglob("*")]}

    first = run(data, folds_text)
    before = times()
    assert run(data, folds_text) == first
    assert times() == before
    assert run(data, folds_text, classes="{low: [calm, sad], high: [angry, happy]}") != first
    assert times() != before


# Recordings to adapt to


THREE = "{calm: [calm], sad: [sad], angry: [angry]}"


def run_adapt(data, adapt, select="last", number=3, classes=CLASSES):
    """Make folds of a protocol with `adapt`; return the parts of each, and its table adapt."""
    protocol = data.parent / "protocol.yaml"
    split = f"{{kind: groups, by: spk, number: {number}}}"
    protocol.write_text(f"description: d\nclasses: {classes}\nfolds: {split}\nselect: {select}\nadapt: {adapt}\n")
    dest = data.parent / "folds/protocol"
    make_folds.main([str(protocol), str(data), str(dest)])
    numbers = range(1, len(list(dest.glob("fold*"))) + 1)
    return [tuple(table(dest / f"fold{fold}", part) for part in (*PARTS, "adapt")) for fold in numbers]


@pytest.mark.parametrize(("select", "utterances"), [("last", 1), ("last", 4), ("dev", 3)])
def test_what_is_set_aside_is_not_scored(data, select, utterances):
    made = run_adapt(data, f"{{utterances: {utterances}, draws: 2}}", select)
    plain = run(data, GROUPS, select)
    assert len(made) == 2 * len(plain)
    utt2spk = table(data, "utt2spk")
    for number, (train, dev, test, adapt) in enumerate(made):
        assert Counter(adapt.values()) == dict.fromkeys(SPEAKERS, utterances)
        assert all(utt2spk[utt] == spk for utt, spk in adapt.items())
        assert not adapt.keys() & {**dev, **test}.keys()
        before = plain[number % len(plain)]  # first the folds of the first draw
        assert train == before[0]
        for part, whole in ((dev, before[1]), (test, before[2])):
            assert part == {utt: name for utt, name in whole.items() if utt not in adapt}
            assert len(part) == len(whole) - utterances * len({utt2spk[utt] for utt in whole})


@pytest.mark.parametrize("utterances", [1, 2, 3, 4, 7])
def test_a_balanced_draw_is_as_even_as_can_be_and_a_skewed_one_as_uneven(utterances):
    """A speaker has two utterances of one class and four of two others."""
    of_speaker = {f"{name}-{number}": name for name, size in (("a", 2), ("b", 4), ("c", 4)) for number in range(size)}
    balanced, skewed = Counter(), Counter()
    for seed in range(300):
        for is_balanced, found in ((True, balanced), (False, skewed)):
            adapt = Adapt(utterances=utterances, balanced=is_balanced)
            drawn = make_folds.draw(adapt, of_speaker, np.random.default_rng(seed))
            assert len({*drawn}) == utterances and {*drawn} <= of_speaker.keys()
            counts = Counter(of_speaker[utt] for utt in drawn)
            found[tuple(counts[name] for name in "abc")] += 1
    even = {1: "100 010 001", 2: "110 101 011", 3: "111", 4: "211 121 112", 7: "232 223"}
    uneven = {1: "100 010 001", 2: "200 020 002", 3: "210 201 030 003", 4: "220 202 040 004", 7: "241 214 043 034"}
    for found, expected in ((balanced, even), (skewed, uneven)):
        assert {"".join(map(str, counts)) for counts in found} == {*expected[utterances].split()}
    if utterances == 1:  # which class it is, is drawn
        assert min(balanced.values()) > 70


def test_utterances_of_a_class_are_drawn_alike():
    of_speaker = {f"a-{number}": "a" for number in range(4)}
    adapt = Adapt(utterances=1)
    counts = Counter(make_folds.draw(adapt, of_speaker, np.random.default_rng(seed))[0] for seed in range(400))
    assert len(counts) == 4 and min(counts.values()) > 70


def test_draws_differ_and_a_seed_repeats_them(data):
    adapt = "{utterances: 3, draws: 3}"
    made = [parts[3] for parts in run_adapt(data, adapt)]
    assert [parts[3] for parts in run_adapt(data, adapt)] == made
    assert len({tuple(one) for one in made}) == len(made)
    other = [parts[3] for parts in run_adapt(data, "{utterances: 3, draws: 3, seed: 1}")]
    assert not any(one in made for one in other)


def test_fewer_recordings_are_among_more(data):
    """So that a curve over their number does not compare other draws."""
    for balanced in ("true", "false"):
        drawn = [run_adapt(data, f"{{utterances: {n}, balanced: {balanced}}}") for n in (1, 2, 4)]
        for fold in range(3):
            one, two, four = (made[fold][3] for made in drawn)
            assert one.items() < two.items() < four.items()


def test_no_recording_to_adapt_to(data):
    made = run_adapt(data, "{utterances: 0}")
    assert [parts[:3] for parts in made] == run(data, GROUPS, "last")
    assert all(adapt == {} for *_, adapt in made)
    assert not list((data.parent / "folds/protocol").glob("fold*/adapt"))  # of the protocol without


def test_what_is_told_of_the_draw(data, capsys):
    run_adapt(data, "{utterances: 2, draws: 2}", "dev")
    out = capsys.readouterr().out
    assert "6 folds by spk, 2 draws of 3; 7 speakers: train 2 to 3, dev 2 to 3, test 2 to 3\n" in out
    assert "fold 1: train 18, dev 14, test 21, set aside 10\n" in out
    text = (data.parent / "folds/protocol/fold1/overlap").read_text()
    assert text.splitlines()[1].startswith("train and test share 0 of 3 speakers")
    protocol = read_protocol(data.parent / "protocol.yaml")
    fold = folds.read_fold(data.parent / "folds/protocol/fold4", data, protocol)
    assert len(fold.adapt) == 14 and fold.sources.keys() == {*fold.train, *fold.dev, *fold.test, *fold.adapt}


def test_a_class_that_is_set_aside_is_not_scored(data, capsys):
    """Each fold tests one speaker, of whom all of a class are drawn: two others stay."""
    made = run_adapt(data, "{utterances: 3, balanced: false}", number=7, classes=THREE)
    out = capsys.readouterr().out
    for number, (_, _, test, adapt) in enumerate(made, 1):
        aside = {table(data, "utt2emo")[utt] for utt in adapt if utt not in made[number - 1][0]}
        assert len(aside) == 1 and len(set(test.values())) == 2
        assert f"fold {number}: train 54, test 6 (none of {aside.pop()}), set aside 3\n" in out


def test_faults_of_a_draw(data):
    def told(*arguments, **options):
        with pytest.raises(UserError) as error:
            run_adapt(data, *arguments, **options)
        return str(error.value).replace(f"{data.parent}/", "")

    least = "protocol.yaml: adapt.utterances: 9, but fold 1 has only 9 of s1; write 8 or less"
    assert told("{utterances: 9}") == least
    most = "use a smaller adapt.utterances, fewer folds or other classes"
    assert told("{utterances: 8}", number=7).endswith(most)
    assert told("{utterances: 0, draws: 2}") == (
        "protocol.yaml: adapt.draws: 2; write 1: with 0 utterances nothing is drawn"
    )
    protocol = data.parent / "protocol.yaml"
    split = "{kind: random, number: 1, test_share: 0.3, seed: 1}"
    protocol.write_text(f"description: d\nclasses: {CLASSES}\nfolds: {split}\nselect: last\nadapt: {{utterances: 1}}\n")
    with pytest.raises(UserError, match=r"adapt: fold 1: s\d is in train and in test; adapt needs folds that keep"):
        make_folds.main([str(protocol), str(data), str(data.parent / "folds/other")])
