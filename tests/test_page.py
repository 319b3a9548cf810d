"""results.html: what is written in it, against the scores, recordings and networks it comes from. Without a browser."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
import torch

from ser import draw_run, networks, page, report, score
from ser.config import read_protocol, read_system
from ser.features import logmel
from ser.recipe import Report
from ser.results import Results
from ser.runs import read_run
from ser.scores import Scores, read_scores
from ser.train import train

RATE, HOP = 8000, 80  # of the recipe's feature


def data_of(path):
    """The numbers of a page."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())[1])


def numbers(packed):
    return np.frombuffer(base64.b64decode(packed), np.uint8)


def scores(n=5, classes=("low", "high"), seed=1, fold=1, prefix="u"):
    """Made-up scores of a run."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(len(classes)), n)
    about = {"fold": f"{fold} of 2", "seed": str(seed), "overlap": "", "date": "today", "commit": "0"}
    utts = [f"{prefix}{number}" for number in range(n)]
    return Scores(about, list(classes), utts, rng.integers(len(classes), size=n), shares.argmax(1), shares)


def report_of(runs, system=None, protocol=None):
    """A report with one system, one protocol, and scores by name of the run."""
    system = system or read_system(Path("conf/toy/tiny.yaml"))
    protocol = protocol or read_protocol(Path("conf/protocols/selects_on_dev.yaml"))
    found = {(system.name, protocol.name): Results(runs, {}, {}, False, False, [])}
    return Report("toy", "", [(Path("conf/toy/tiny.yaml"), system)], [protocol], [], {}, found, {}, set())


def write(*arguments, lines=("# Results: toy",), **options):
    page.write(Path("results.html"), report_of(*arguments, **options), lines)
    return data_of(Path("results.html"))


def decoded(run, n_classes):
    """Predicted classes (N,) and probabilities (N, C) of a run."""
    values = [int(run["answers"][place : place + 2], 36) for place in range(0, len(run["answers"]), 2)]
    table = np.array(values).reshape(-1, n_classes + 1)
    return table[:, 0], table[:, 1:] / 1000


@pytest.fixture
def spoken(recipe):
    """The recipe with recordings of its test utterances in a folder with an odd name."""
    folder = Path("a corpus & more #1")
    folder.mkdir()
    rng = np.random.default_rng(2)
    lines = []
    for utt in recipe.part("test"):
        samples = 0.3 * rng.standard_normal((len(recipe.matrices[utt]) - 1) * HOP + rng.integers(HOP)).clip(-3, 3)
        soundfile.write(folder / f"{utt}.wav", samples, RATE, subtype="FLOAT")
        lines.append(f"{utt} {folder}/{utt}.wav\n")
    Path("data/all/wav.scp").write_text("".join(lines))
    return recipe


def test_a_recipe_from_training_to_page(spoken, capsys):
    folder = spoken.lay_out("tiny/selects_on_dev/fold1_seed1")
    train(folder)
    score.main(["--systems", "conf/toy/tiny.yaml", "--protocols", "conf/protocols/selects_on_dev.yaml"])
    draw_run.main([str(folder)])
    report.main(["--corpus", "toy", "--html"])
    assert capsys.readouterr().out.endswith(f"{Path('results.html').resolve()}\n")
    data = data_of(Path("results.html"))
    (row,) = data["rows"]
    assert (row["system"], row["protocol"], row["classes"], row["part"]) == (
        "tiny", "selects_on_dev", ["low", "high"], "development",
    )  # fmt: skip
    ours = read_scores(Path("results/tiny/selects_on_dev/fold1_seed1.txt"))
    (run,) = row["runs"].values()
    predicted, shares = decoded(run, 2)
    assert predicted.tolist() == ours.predicted.tolist()
    assert np.abs(shares - ours.posteriors).max() <= 0.0005 + 1e-9
    utts = [data["utts"][number] for number in data["sets"][run["set"]]["utts"]]
    assert [utt["utt"] for utt in utts] == ours.utts
    assert {utt["speaker"] for utt in utts} == {"d"}
    assert data["sets"][run["set"]]["true"] == ours.true.tolist()
    counts = [[int(((ours.true == t) & (ours.predicted == p)).sum()) for p in (0, 1)] for t in (0, 1)]
    assert run["counts"] == counts
    assert run["wa"] == f"{100 * (ours.true == ours.predicted).mean():.1f}"
    log = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert run["curves"]["dev_wa"] == pytest.approx([line["dev_wa"] for line in log], rel=1e-3)
    assert run["curves"]["train_loss"] == pytest.approx([line["train_loss"] for line in log], rel=1e-3)

    lines = Path("figures/tiny_selects_on_dev_tsne.txt").read_text().splitlines()
    points = [line.split() for line in lines if not line.startswith(("#", "utt "))]
    assert [*zip(row["tsne"]["utts"], row["tsne"]["classes"], strict=True)] == [(p[0], p[1]) for p in points]
    assert np.array(row["tsne"]["places"]) == pytest.approx(np.array([p[2:] for p in points], float), abs=0.051)

    # the attention over a recording, by the network alone: frame t is at t * 10 ms
    assert row["attention"]["run"] == "fold1_seed1"
    network, statistics, _ = networks.trained(read_run(folder))
    assert len(row["attention"]["curves"]) == len(ours.utts)
    for number, curves in row["attention"]["curves"].items():
        utt = data["utts"][int(number)]
        frames = torch.from_numpy((spoken.matrices[utt["utt"]] - statistics["mean"]) / statistics["deviation"])[None]
        seconds = soundfile.info(unquote(utt["address"])).duration
        with torch.no_grad():
            weights = network.frame_weights(frames, torch.tensor([frames.shape[1]]))["attention"][0].numpy()
        weights = weights * len(weights)  # 1 is an equal share
        shares = numbers(curves["attention"]["shares"]) / 255 * curves["attention"]["highest"]
        for place in range(0, page.POINTS, 17):
            frame = (place + 0.5) / page.POINTS * seconds * 100
            low = min(int(frame), len(weights) - 1)
            part = frame - low if low < len(weights) - 1 else 0  # the last frame holds to the end
            by_hand = weights[low] * (1 - part) + (weights[low + 1] * part if part else 0)
            assert shares[place] == pytest.approx(float(by_hand), abs=0.01 + float(weights.max()) / 255)


@pytest.mark.parametrize(("duration", "pad"), [(None, "end"), (2.0, "end"), (2.0, "front"), (0.7, "front")])
def test_frames_are_where_their_sound_is(duration, pad):
    """A click at 0.5 s of a recording of 1 s; the loudest frame is there, however the feature pads or cuts it."""
    config = logmel.Config(
        sample_rate=RATE, n_fft=256, win_length=200, hop_length=HOP, n_mels=6, fmin=0, fmax=4000, window="hann",
        duration=duration, pad=pad,
    )  # fmt: skip
    samples = np.zeros(RATE, np.float32)
    samples[RATE // 2] = 1
    frames = logmel.extract(samples, config)
    run = SimpleNamespace(system=SimpleNamespace(feature=config), feature=logmel)
    times = page.frame_times(run, 1.0, len(frames))
    assert times[frames.sum(1).argmax()] == pytest.approx(0.5, abs=0.011)


def test_attention_of_other_weights_is_not_shown(spoken):
    folder = spoken.lay_out("tiny/selects_on_dev/fold1_seed1")
    train(folder)
    score.main(["--systems", "conf/toy/tiny.yaml", "--protocols", "conf/protocols/selects_on_dev.yaml"])
    (folder / "best.safetensors").write_bytes(b"weights of another training")
    report.main(["--corpus", "toy", "--html"])
    (row,) = data_of(Path("results.html"))["rows"]
    assert "attention" not in row


def test_attention_that_cannot_be_computed_is_told(spoken):
    folder = spoken.lay_out("tiny/selects_on_dev/fold1_seed1")
    train(folder)
    score.main(["--systems", "conf/toy/tiny.yaml", "--protocols", "conf/protocols/selects_on_dev.yaml"])
    spoken_part = Path("data/folds/selects_on_dev/fold1/test")
    spoken_part.write_text("".join(spoken_part.read_text().splitlines(True)[:-1]))
    report.main(["--corpus", "toy", "--html"])
    (row,) = data_of(Path("results.html"))["rows"]
    assert "made with different" in row["attention"]["note"]


def test_sound_is_linked_and_outlined(spoken):
    runs = {"fold1_seed1": replace(scores(12), utts=spoken.part("test"))}
    data = write(runs)
    assert len(data["utts"]) == 12
    for utt in data["utts"]:
        place = Path("results.html").parent / unquote(utt["address"])
        assert not utt["address"].startswith(("/", "file:")) and "#" not in utt["address"] and " " not in utt["address"]
        samples, _ = soundfile.read(place)
        assert utt["seconds"] == pytest.approx(len(samples) / RATE, abs=6e-4)
        parts = [samples[n * len(samples) // 200 : (n + 1) * len(samples) // 200] for n in range(200)]
        by_hand = np.array([np.abs(part).max() for part in parts])
        assert np.abs(numbers(utt["outline"]) / 255 - by_hand / by_hand.max()).max() <= 0.5 / 255 + 1e-6


def test_no_player_where_there_is_no_recording(spoken):
    utts = spoken.part("test")
    lines = Path("data/all/wav.scp").read_text().splitlines()
    lines = lines[1:]  # not listed
    lines[0] = f"{utts[1]} sox a.mp3 -t wav - |"
    lines[1] = f"{utts[2]} nowhere/a.wav"
    Path("data/all/wav.scp").write_text("\n".join(lines) + "\n")
    told = {utt["utt"]: utt for utt in write({"fold1_seed1": replace(scores(12), utts=utts)})["utts"]}
    assert all("address" not in told[utt] for utt in utts[:3])
    assert "does not list" in told[utts[0]]["note"]
    assert "shell command" in told[utts[1]]["note"]
    assert "nowhere/a.wav: No such file" in told[utts[2]]["note"]
    assert "note" not in told[utts[3]] and told[utts[3]]["address"]


def test_without_data(recipe):
    for name in ("utt2spk", "utt2md5"):
        Path("data/all", name).unlink()
    data = write({"fold1_seed1": scores()})
    assert [utt["speaker"] for utt in data["utts"]] == [""] * 5
    assert {utt["note"] for utt in data["utts"]} == {"No sound: there is no data/all/wav.scp here."}


def test_a_recording_shorter_than_the_outline():
    assert page.outline(np.array([0.5, -1.0, 0.25], np.float32)).tolist()[:: page.POINTS // 2][:1] == [0.5]
    assert len(page.outline(np.array([0.5, -1.0, 0.25], np.float32))) == page.POINTS


def test_probabilities_of_zero_and_one_and_many_classes(recipe):
    classes = [f"c{number}" for number in range(40)]
    shares = np.eye(40)[[0, 39, 5]]
    one = replace(scores(3, classes), posteriors=shares, predicted=shares.argmax(1), true=np.array([0, 39, 6]))
    (row,) = write({"fold1_seed1": one})["rows"]
    predicted, found = decoded(row["runs"]["fold1_seed1"], 40)
    assert predicted.tolist() == [0, 39, 5]
    assert np.array_equal(found, shares)


def test_runs_with_the_same_utterances_share_them(recipe):
    one, other = scores(seed=1), scores(seed=2)
    data = write({"fold1_seed1": one, "fold1_seed2": replace(other, true=one.true), "fold2_seed1": scores(prefix="v")})
    sets = [run["set"] for run in data["rows"][0]["runs"].values()]
    assert sets[0] == sets[1] != sets[2]
    assert len(data["sets"]) == 2 and len(data["utts"]) == 10


def test_the_size_is_bounded_and_every_row_keeps_some(recipe, monkeypatch):
    """With room for three runs, each of two rows has its first, and the first row its second."""
    runs = {f"fold1_seed{seed}": scores(10, seed=seed) for seed in (1, 2, 3)}
    one = report_of(runs)
    other = read_protocol(Path("conf/protocols/selects_on_last.yaml"))
    found = one.found | {("tiny", other.name): Results(runs, {}, {}, False, False, [])}
    monkeypatch.setattr(page, "SCORES_SIZE", 3 * 10 * 3 * 2)  # 10 utterances of 3 numbers of 2 digits
    page.write(Path("results.html"), replace(one, protocols=[*one.protocols, other], found=found), [])
    rows = data_of(Path("results.html"))["rows"]
    kept = [[name for name, run in row["runs"].items() if "answers" in run] for row in rows]
    assert kept == [["fold1_seed1", "fold1_seed2"], ["fold1_seed1"]]
    assert all("counts" in run for row in rows for run in row["runs"].values())


def test_two_characters_a_number(recipe):
    """700 utterances of seven classes, 25 runs: what a page of TESS has, six times."""
    runs = {f"fold1_seed{seed}": scores(700, list("abcdefg"), seed) for seed in range(25)}
    write({name: replace(run, true=runs["fold1_seed0"].true) for name, run in runs.items()})
    size = Path("results.html").stat().st_size
    assert 25 * 700 * 8 * 2 < size < 25 * 700 * 8 * 2 + 200_000


def test_names_do_not_become_html(recipe):
    bad = "<img src=x onerror=alert(1)>"
    system = replace(
        read_system(Path("conf/toy/tiny.yaml")), name=bad, description="</script><script>alert(2)</script>"
    )
    one = replace(scores(3, ["low", "<b>high</b>"]), utts=["</script>", "<!--", "u&1"])
    lines = ["# Results: <toy>", "", f"| **{bad}**: {system.description} |", "| --- |", f"| {bad} |"]
    data = write({"fold1_seed1": one}, system=system, lines=lines)
    text = Path("results.html").read_text()
    assert text.count("<script") == text.count("</script>") == 3
    assert "<img src=x" not in text and "<b>high" not in text and "<!--" not in text.replace("<!DOCTYPE", "")
    assert [utt["utt"] for utt in data["utts"]] == ["</script>", "<!--", "u&1"]
    assert data["systems"] == {bad: system.description}
    assert data["rows"][0]["classes"] == ["low", "<b>high</b>"]


def test_only_the_two_scripts_of_the_page_may_run(recipe):
    write({"fold1_seed1": scores()})
    text = Path("results.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert rules["script-src"] == " ".join(f"'sha256-{one}'" for one in hashes) and len(hashes) == 2
    assert rules["default-src"] == "'none'"
    assert not re.search(r"https?://(?!github\.com/leeoniya|www\.w3\.org)", text)  # uPlot's address is in a comment


def test_tables_and_pictures_of_the_results(recipe):
    lines = [
        "# Results: toy",
        "| a |",
        "| --- |",
        "| 40.8 ± 3.1 |",
        "",
        "## More",
        "![p](figures/p.png) ![q](gone.png)",
    ]
    Path("figures").mkdir()
    Path("figures/p.png").write_bytes(b"\x89PNG picture")
    write({"fold1_seed1": scores()}, lines=lines)
    text = Path("results.html").read_text()
    assert '<div class="scroll"><table>' in text and "<td>40.8 ± 3.1</td>" in text
    assert '<a href="#more">More</a>' in text
    assert (
        f'src="data:image/png;base64,{base64.b64encode(b"x89PNG picture".replace(b"x89", bytes([0x89]))).decode()}"'
        in text
    )
    assert 'src="gone.png"' in text


def test_no_scores(recipe):
    report.main(["--corpus", "toy", "--html"])
    data = data_of(Path("results.html"))
    assert (data["rows"], data["utts"], data["systems"]) == ([], [], {})


def test_without_the_option_there_is_no_page(recipe):
    report.main(["--corpus", "toy"])
    assert not Path("results.html").exists()
