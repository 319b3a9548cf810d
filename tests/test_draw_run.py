"""The figures of a trained network, against its own answers to one utterance after the other."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from ser import draw_run, networks, noise, score
from ser.cli import UserError
from ser.config import read_system, read_yaml
from ser.draw_run import (
    describe_silence,
    examples,
    hear,
    is_quiet,
    mean_profile,
    neighbour_share,
    points,
    silence_and_rest,
    to_plane,
)
from ser.features import logmel
from ser.reading import read_inputs, read_run_fold
from ser.runs import read_run
from ser.train import train

RATE, HOP = 8000, 80  # of the recipe's feature


@pytest.fixture
def toy(recipe):
    """The recipe with recordings of its test utterances, as long as their features say: a soft hiss, and
    a loud tone in the middle."""
    rng = np.random.default_rng(1)
    for utt in recipe.part("test"):
        samples = 1e-4 * rng.standard_normal((len(recipe.matrices[utt]) - 1) * HOP + rng.integers(HOP))
        middle = slice(len(samples) // 3, 2 * len(samples) // 3)
        samples[middle] += 0.5 * np.sin(np.arange(len(samples))[middle])
        soundfile.write(f"{utt}.wav", samples, RATE, subtype="FLOAT")
    Path("data/all/wav.scp").write_text("".join(f"{utt} {utt}.wav\n" for utt in recipe.part("test")))
    return recipe


def lay_out(recipe, system="tiny", **options):
    """A run that is done, with random weights that make its attention uneven and its answers now right, now wrong."""
    folder = recipe.lay_out(f"{system}/selects_on_dev/fold1_seed1", system=system, **options)
    torch.manual_seed(3)
    network = networks.build(read_run(folder).system, {"n_features": 6, "n_classes": 2})
    weights = {
        name: value if "norm" in name else torch.empty_like(value).uniform_(-1, 1)
        for name, value in network.state_dict().items()
    }
    networks.save(folder / "best.safetensors", weights, {"sizes": {"n_features": 6, "n_classes": 2}})
    frames = np.concatenate([recipe.matrices[utt] for utt in recipe.part("train")])
    statistics = {"mean": torch.from_numpy(frames.mean(0)), "deviation": torch.from_numpy(frames.std(0))}
    networks.save(folder / "normalisation.safetensors", statistics)
    line = {"epoch": 1, "dev_loss": 1.0, "dev_ua": 50.0, "seconds": 1.0}
    (folder / "epochs.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "done").touch()
    return folder


def model():
    """The first digits of what tells the weights of the run that `lay_out` made."""
    return read_run("exp/tiny/selects_on_dev/fold1_seed1").model[:8]


def table(name):
    """Comments, header and lines of a figure's text."""
    lines = Path(f"figures/{name}.txt").read_text().splitlines()
    comments = [line for line in lines if line.startswith("# ")]
    header, *rest = lines[len(comments) :]
    return comments, header.split(), [line.split() for line in rest]


def alone(folder, utt, matrix):
    """What the run's network says to one utterance: class number, what its last layer takes in, weights; and the frames."""
    network, statistics, _ = networks.trained(read_run(folder))
    frames = torch.from_numpy((matrix - statistics["mean"]) / statistics["deviation"])[None]
    lengths = torch.tensor([len(matrix)])
    with torch.no_grad():
        predicted = int(network(frames, lengths)[0].argmax())
        weights = network.frame_weights(frames, lengths)["attention"][0].numpy()
        network.output = torch.nn.Identity()
        return predicted, network(frames, lengths)[0][0].numpy(), weights, frames[0].numpy()


def share_by_a_loop(space, classes):
    right = 0
    for row, point in enumerate(space):
        distances = [np.linalg.norm(point - other) if place != row else np.inf for place, other in enumerate(space)]
        right += classes[int(np.argmin(distances))] == classes[row]
    return 100 * right / len(space)


def test_tsne(toy):
    run = lay_out(toy)
    draw_run.main([str(run)])
    assert Path("figures/tiny_selects_on_dev_tsne.png").read_bytes().startswith(b"\x89PNG")
    comments, header, lines = table("tiny_selects_on_dev_tsne")
    assert header == ["utt", "class", "x_features", "y_features", "x_output", "y_output"]
    utts = sorted(toy.part("test"))
    assert [line[:2] for line in lines] == [[utt, toy.classes[utt]] for utt in utts]  # each once
    assert np.isfinite(np.array([line[2:] for line in lines], float)).all()
    seen = [alone(run, utt, toy.matrices[utt]) for utt in utts]
    classes = [toy.classes[utt] for utt in utts]
    inputs = share_by_a_loop([np.r_[frames.mean(0), frames.std(0)] for *_, frames in seen], classes)
    outputs = share_by_a_loop([vector for _, vector, *_ in seen], classes)
    assert inputs != outputs
    assert comments == [
        f"# tiny, protocol selects_on_dev, fold 1, seed 1, model {model()}: t-SNE of 12 test utterances",
        "# share with a nearest neighbour of the same class, in per cent:",
        f"# input features: {inputs:.1f}",
        f"# output representation: {outputs:.1f}",
        f"# by chance: {100 * (8 * 7 + 4 * 3) / (12 * 11):.1f}",
    ]


def test_attention(toy, capsys):
    run = lay_out(toy)
    draw_run.main([str(run)])
    assert Path("figures/tiny_selects_on_dev_attention.png").read_bytes().startswith(b"\x89PNG")
    comments, header, lines = table("tiny_selects_on_dev_attention")
    assert header == ["utt", "seconds", "attention"]
    utts = sorted(toy.part("test"))
    seen = {utt: alone(run, utt, toy.matrices[utt]) for utt in utts}

    shown = []
    for number, name in enumerate(("low", "high")):
        of_class = [utt for utt in utts if toy.classes[utt] == name]
        shown.append(([utt for utt in of_class if seen[utt][0] == number] or of_class)[0])
    assert list(dict.fromkeys(line[0] for line in lines)) == shown
    for utt in shown:
        predicted, _, weights, _ = seen[utt]
        assert f"# {utt}: {toy.classes[utt]}, predicted {('low', 'high')[predicted]}" in comments
        written = {round(float(seconds) * RATE / HOP): float(weight) for name, seconds, weight in lines if name == utt}
        assert next(iter(written)) == 0
        for frame, weight in enumerate(weights):  # a weight holds until the next line
            last = max(start for start in written if start <= frame)
            assert written[last] == pytest.approx(weight * len(weights), abs=2e-4)

    quiet, loud = [], []
    for utt in utts:
        samples = soundfile.read(f"{utt}.wav")[0]
        weights = seen[utt][2]
        middles = [samples[max(t * HOP - HOP // 2, 0) : t * HOP + HOP // 2] for t in range(len(weights))]
        power = np.array([(part**2).sum() for part in middles])
        for weight, is_silence in zip(weights * len(weights), power < power.max() / 1e4, strict=True):
            (quiet if is_silence else loud).append(weight)
    share = 100 * len(quiet) / (len(quiet) + len(loud))
    assert 50 < share < 80
    first, second, third = comments[1:4]
    loudest = "below -40 dB of their utterance's loudest"
    assert (
        first
        == f"# mean weight of the frames {loudest} ({share:.0f} % of the test utterances' frames), and of the others:"
    )
    assert second == f"# {np.mean(quiet):.2f} {np.mean(loud):.2f}"
    assert third.endswith(" if all steps of the attention weighed the same")
    assert comments[4].endswith(" if each utterance had the mean weights of all, frame by frame")
    assert comments[5].startswith(f"# {shown[0]}")
    pictures = [
        Path(f"figures/tiny_selects_on_dev_{name}.png").resolve() for name in ("tsne", "tsne_speakers", "attention")
    ]
    printed = [
        f"tiny, protocol selects_on_dev, fold 1, seed 1, model {model()}: attention",
        *(line.removeprefix("# ") for line in comments[1:5]),
    ]
    assert capsys.readouterr().out.splitlines() == [str(pictures[0]), str(pictures[1]), *printed, str(pictures[2])]


def test_tsne_by_speaker(toy):
    """The same points, and another neighbour that is asked for."""
    Path("data/all/utt2spk").write_text("".join(f"{utt} {utt[0]}{int(utt[-1]) % 3}\n" for utt in toy.classes))
    run = lay_out(toy)
    draw_run.main([str(run)])
    comments, header, lines = table("tiny_selects_on_dev_tsne_speakers")
    assert header[:2] == ["utt", "speaker"]
    assert [line[2:] for line in lines] == [line[2:] for line in table("tiny_selects_on_dev_tsne")[2]]
    utts = sorted(toy.part("test"))
    speakers = [f"{utt[0]}{int(utt[-1]) % 3}" for utt in utts]
    assert [line[:2] for line in lines] == [list(pair) for pair in zip(utts, speakers, strict=True)]
    share = share_by_a_loop([alone(run, utt, toy.matrices[utt])[1] for utt in utts], speakers)
    assert comments[1] == "# share with a nearest neighbour of the same speaker, in per cent:"
    assert comments[3] == f"# output representation: {share:.1f}"


LEMOINE = {
    "kind": "lemoine", "segment": 8, "channels": 1, "maps": [3], "linear_size": 5, "hidden_size": 4, "embedding_size": 6,
    "regularisation": "mean", "speaker_weight": 1.0,
}  # fmt: skip


def test_an_attention_of_two_parts_in_chosen_utterances(toy, capsys):
    toy.write_yaml("conf/toy/lemoine.yaml", **read_yaml("conf/toy/tiny.yaml") | {"model": LEMOINE})
    folder = toy.lay_out("lemoine/selects_on_dev/fold1_seed1", system="lemoine")
    train(folder, "cpu")
    draw_run.main([str(folder), "--utts", "d-05", "d-02"])
    comments, header, lines = table("lemoine_selects_on_dev_attention_chosen")
    assert comments[0].endswith(": attention in chosen utterances")
    assert header == ["utt", "seconds", "self_attention", "speaker_attention"]
    assert list(dict.fromkeys(line[0] for line in lines)) == ["d-05", "d-02"]
    network, statistics, _ = networks.trained(read_run(folder))
    for utt in ("d-05", "d-02"):
        frames = torch.from_numpy((toy.matrices[utt] - statistics["mean"]) / statistics["deviation"])[None]
        both = network.frame_weights(frames, torch.tensor([frames.shape[1]]))
        written = [line for line in lines if line[0] == utt]
        for column, weights in zip((2, 3), both.values(), strict=True):
            for line in written:
                frame = round(float(line[1]) * RATE / HOP)
                expected = 2 * frames.shape[1] * weights[0, frame].item()  # 1 is the share of each of 2 T
                assert float(line[column]) == pytest.approx(expected, abs=2e-3)
    assert [line.split(" of the frames")[0] for line in comments if " of the frames below" in line] == [
        "# mean self attention weight", "# mean speaker attention weight",
    ]  # fmt: skip


def test_attention_to_words(spoken, capsys):
    folder = spoken.lay_out("peng/selects_on_dev/fold1_seed1", system="peng")
    train(folder, "cpu")
    draw_run.main([str(folder)])
    names = {path.name for path in Path("figures").iterdir()}
    assert names == {
        f"peng_selects_on_dev_{name}.{end}" for name in ("tsne", "tsne_speakers", "words") for end in ("png", "txt")
    }
    assert Path("figures/peng_selects_on_dev_words.png").read_bytes().startswith(b"\x89PNG")
    assert f"{Path('figures/peng_selects_on_dev_words.png').resolve()}\n" in capsys.readouterr().out
    draw_run.main([str(folder), "--utts", "d-05", "d-02"])
    comments, header, lines = table("peng_selects_on_dev_words_chosen")
    assert header == ["utt", "max", "mean", "word"]
    run = read_run(folder)
    network, statistics, _ = networks.trained(run)
    fold = read_run_fold(run)
    inputs = read_inputs(run, fold)
    for utt, comment in zip(("d-05", "d-02"), comments[1:], strict=True):
        batch = inputs.batch([utt], statistics)
        with torch.no_grad():
            weights = network.word_weights(batch.frames, batch.lengths, **batch.extras)
            predicted = fold.classes[networks.forward(network, batch, "float32")[0].argmax()]
        assert comment == f"# {utt}: {spoken.classes[utt]}, predicted {predicted}"
        own = [line for line in lines if line[0] == utt]
        said = ["yes"] if spoken.classes[utt] == "low" else ["oh", "no"]
        assert [" ".join(line[3:]) for line in own] == [*said, f"{utt[0]}{utt[2:]} (unknown)"]
        for column, name in enumerate(("max", "mean"), 1):
            np.testing.assert_allclose([float(line[column]) for line in own], weights[name][0], atol=6e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_calls_write_the_same_bytes(toy, precision):
    run = lay_out(toy, precision=precision)
    content = []
    for _ in range(2):
        draw_run.main([str(run)])
        content.append({path.name: path.read_bytes() for path in Path("figures").iterdir()})
    assert content[0] == content[1]
    assert len(content[0]) == 6


def test_no_attention_no_figure_of_it(toy, capsys):
    run = lay_out(toy, model={"attention_size": None})
    draw_run.main([str(run)])
    assert sorted(path.name for path in Path("figures").iterdir()) == [
        f"tiny_selects_on_dev_{name}" for name in ("tsne.png", "tsne.txt", "tsne_speakers.png", "tsne_speakers.txt")
    ]
    paths = [Path(f"figures/tiny_selects_on_dev_{name}.png").resolve() for name in ("tsne", "tsne_speakers")]
    assert capsys.readouterr().out == f"{paths[0]}\n{paths[1]}\n"


def test_a_network_that_knows_no_attention(recipe):
    model = {"kind": "bledea", "steps": "frames", "hidden_size": 4, "dense_size": 5, "dropout": 0.5}
    recipe.write_yaml("conf/toy/lstm.yaml", **read_yaml("conf/toy/tiny.yaml") | {"model": model})
    draw_run.main([str(lay_out(recipe, "lstm"))])
    texts = sorted(path.name for path in Path("figures").glob("*.txt"))
    assert texts == ["lstm_selects_on_dev_tsne.txt", "lstm_selects_on_dev_tsne_speakers.txt"]


def test_a_network_that_scores_frames_is_the_mean_of_them(recipe):
    """Beside the same network with mean pooling, whose last layer takes in that mean."""
    vectors = {}
    for pooling, names in (("frames", []), ("functionals", ["mean"])):
        model = {
            "kind": "mirsamadi",
            "dense_sizes": [4],
            "hidden_size": 3,
            "pooling": pooling,
            "functionals": names,
            "dropout": 0.5,
        }
        recipe.write_yaml(f"conf/toy/{pooling}.yaml", **read_yaml("conf/toy/tiny.yaml") | {"model": model})
        run = read_run(lay_out(recipe, pooling))
        vectors[pooling] = draw_run.see(run, read_run_fold(run), "cpu").vectors
    np.testing.assert_allclose(vectors["frames"], vectors["functionals"], rtol=1e-5, atol=1e-6)


def test_several_runs(toy):
    toy.write_yaml("conf/toy/twin.yaml", **read_yaml("conf/toy/tiny.yaml"))
    draw_run.main([str(lay_out(toy)), str(lay_out(toy, "twin"))])
    ours, theirs = (
        {path.name.removeprefix(name): path for path in Path("figures").glob(f"{name}*")} for name in ("tiny", "twin")
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        if name.endswith(".txt"):
            assert ours[name].read_text().replace("tiny", "twin") == theirs[name].read_text()


def test_figures_of_a_run_that_the_table_does_not_show_lie_aside(toy):
    folder = lay_out(toy)
    score.score(folder, Path("results/tiny/selects_on_dev/fold1_seed1.txt"), "cpu")
    draw_run.main([str(folder)])
    figure = Path("figures/tiny_selects_on_dev_tsne.png")
    before = figure.read_bytes()
    shutil.rmtree(folder)
    lay_out(toy)
    network, notes = networks.load(folder / "best.safetensors")
    networks.save(
        folder / "best.safetensors",
        {name: -value if "output" in name else value for name, value in network.items()},
        notes,
    )
    draw_run.main([str(folder)])
    assert figure.read_bytes() == before
    assert Path("figures/own", figure.name).exists()


class TestRefused:
    """One line each."""

    def refuse(self, folder, error):
        with pytest.raises(UserError) as told:
            draw_run.main([str(folder)])
        assert str(told.value) == error

    def test_a_run_that_is_not_done(self, toy):
        run = lay_out(toy)
        (run / "done").unlink()
        self.refuse(run, f"{run}: not done; run stage 4")

    def test_a_classical_model(self, recipe):
        run = recipe.lay_out("svm/selects_on_dev/fold1_seed1", system="svm")
        (run / "done").touch()
        self.refuse(run, f"{run}: not a network, and only networks are drawn; leave it out")

    def test_no_run(self, tmp_path):
        self.refuse(tmp_path / "no", f"{tmp_path}/no/run.yaml: no such file")

    def test_an_utterance_that_is_not_tested(self, toy):
        run = lay_out(toy)
        with pytest.raises(
            UserError,
            match=f"^--utts a-00: not a test utterance of {run}; see data/folds/selects_on_dev/fold1/test$",
        ):
            draw_run.main([str(run), "--utts", "d-00", "a-00"])

    def test_another_split(self, toy):
        run = lay_out(toy)
        table = Path("data/folds/selects_on_dev/fold1/test")
        table.write_text("".join(table.read_text().splitlines(keepends=True)[1:]))
        with pytest.raises(UserError, match="made with different utterances"):
            draw_run.main([str(run)])

    def test_few_utterances(self, toy):
        Path("data/folds/selects_on_dev/fold1/test").write_text("d-00 high\nd-01 low\nd-02 low\n")
        run = lay_out(toy)
        self.refuse(run, f"{run}: 3 test utterances, but t-SNE needs 4; leave it out")

    def test_a_recording_that_is_gone(self, toy):
        run = lay_out(toy)
        Path("d-03.wav").unlink()
        self.refuse(run, "d-03.wav: No such file or directory; check the path and its permissions")

    def test_a_recording_without_a_line(self, toy):
        run = lay_out(toy)
        Path("data/all/wav.scp").write_text("")
        self.refuse(
            run,
            "data/all/wav.scp: no line for d-00, d-01, d-02 and 9 more; add them, or run the stage that writes the table again",
        )

    def test_a_shell_command(self, toy):
        run = lay_out(toy)
        text = Path("data/all/wav.scp").read_text()
        Path("data/all/wav.scp").write_text(text.replace("d-02.wav", "touch bad |"))
        self.refuse(run, "data/all/wav.scp: d-02 is a shell command, 'touch bad |'; replace it with a file")
        assert not Path("bad").exists()


def test_points_of_one_length_are_all_their_values():
    matrices = list(np.random.default_rng(0).standard_normal((4, 3, 2)))
    assert np.array_equal(points(matrices), [[value for frame in matrix for value in frame] for matrix in matrices])


def test_points_of_unequal_lengths_are_means_and_deviations():
    short, long = np.array([[1.0, 5.0]]), np.array([[1.0, 2.0], [5.0, 2.0]])
    assert points([short, long]).tolist() == [[1, 5, 0, 0], [3, 2, 2, 0]]


@pytest.mark.parametrize("size", [(4, 1000), (30, 2), (100, 60)])
def test_a_plane_of_clusters(size):
    """Two clusters far apart lie apart in the plane: the nearest point is of the same one."""
    space = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    space[::2] += 100
    plane = to_plane(space)
    assert plane.shape == (size[0], 2)
    assert np.array_equal(plane, to_plane(space))
    if size[0] > 4:
        assert neighbour_share(plane, np.arange(size[0]) % 2) == 1


def test_a_plane_of_points_that_are_all_one():
    """As a network that has collapsed gives them."""
    assert np.isfinite(to_plane(np.full((20, 8), 0.3, np.float32))).all()


@pytest.mark.parametrize("size", [(4, 3), (50, 2), (40, 300)])
def test_neighbour_share_is_that_of_a_loop(size):
    rng = np.random.default_rng(size[0])
    space, true = rng.standard_normal(size), rng.integers(3, size=size[0])
    assert 100 * neighbour_share(space, true) == pytest.approx(share_by_a_loop(space, true))


def test_a_point_is_not_its_own_neighbour():
    space = np.array([[0.0], [0.0], [5.0], [6.0]])  # two are one
    assert neighbour_share(space, np.array([0, 1, 1, 0])) == 0


def test_examples():
    true = np.array([2, 0, 0, 2, 2, 0])
    assert examples(true, np.array([0, 1, 0, 2, 2, 0])) == [2, 3]  # no 1 is there
    assert examples(true, np.array([0, 1, 1, 1, 1, 1])) == [1, 0]  # never right


class TestSilence:
    """Frames far below the loudest, and the weights on them."""

    def test_by_hand(self):
        samples = np.zeros(45, np.float32)
        samples[25:35] = 1  # the ten samples around the middle of frame 3
        samples[5:15] = 0.011
        samples[35:45] = [0.009, -0.009] * 5
        assert is_quiet(samples, 10, 5).tolist() == [True, False, True, False, True]

    @pytest.mark.parametrize("length", [400, 401, 479, 480, 519])
    def test_lengths(self, length):
        """A click lies in the frame whose middle is the nearest."""
        for place in (0, 39, 41, 200, length - 1 - (length % 80 > 40) * (length % 80 - 40)):
            samples = np.zeros(length, np.float32)
            samples[place] = 1
            loud = (~is_quiet(samples, 80, 1 + length // 80)).nonzero()[0]
            assert loud.tolist() == [(place + 40) // 80]

    def test_mean_weights(self):
        weights = [np.array([1.5, 0.75, 0.75]), np.array([0.2, 1.8])]
        quiet = [np.array([False, True, True]), np.array([True, False])]
        assert silence_and_rest(weights, quiet) == pytest.approx(((0.75 + 0.75 + 0.2) / 3, (1.5 + 1.8) / 2))

    def test_the_mean_weights_of_each_frame(self):
        weights = [np.array([1.5, 0.75, 0.75]), np.array([0.2, 1.8])]
        assert mean_profile(weights) == pytest.approx([0.85, 1.275, 0.75])

    def test_in_words(self):
        weights = [np.array([1.5, 0.5]), np.array([0.5, 1.5])]
        quiet = [np.array([True, False]), np.array([True, False])]
        even = [np.ones(2)] * 2
        head, *lines = describe_silence(weights, even, [np.array([False, True]), np.array([True, False])])
        assert head.startswith("mean weight of the frames below -40 dB of their utterance's loudest (50 % ")
        assert lines == [
            "0.50 1.50",
            "1.00 1.00 if all steps of the attention weighed the same",
            "1.00 1.00 if each utterance had the mean weights of all, frame by frame",
        ]
        assert describe_silence(weights, even, quiet)[1] == "1.00 1.00"
        none = describe_silence(weights, even, [np.zeros(2, bool)] * 2)
        assert none == ["no frame of a test utterance is below -40 dB of its loudest"]


@pytest.mark.parametrize("level", [None, "snr10"])
def test_what_is_heard(recipe, tmp_path, level):
    """The recording at the feature's rate, with the protocol's noise, of the feature's length."""
    samples = 0.5 * np.sin(np.arange(1600) / 9).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", samples, RATE, subtype="FLOAT")
    config = replace(read_system("conf/toy/tiny.yaml").feature, duration=0.5, pad="front")
    run = SimpleNamespace(data=tmp_path, system=SimpleNamespace(feature=config), protocol=SimpleNamespace(noise=level))
    heard = hear(run, "a-1", {"a-1": str(tmp_path / "x.wav")}, logmel)
    expected = noise.add(samples, level, "a-1") if level else samples
    assert np.array_equal(heard, np.concatenate((np.zeros(2400, np.float32), expected)))
