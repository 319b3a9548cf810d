"""results.html: the tables of RESULTS.md, and the runs behind them, to look at and listen to in a browser.

One file without a server: styles, scripts and numbers are in it, and nothing is fetched from a network. Its tables are
those of RESULTS.md, so their numbers are the same. The numbers of the runs come from the scores in results/. Recordings
are linked where data/all/wav.scp has them, not copied; for each, an outline of its waveform is stored. Where exp/ has
the main system's network whose scores are shown, and it has attention, the weights of its frames are stored for one run
of each protocol.

uPlot 1.6.32 (MIT licence, ser/page_assets/uPlot.LICENSE) draws the learning curves.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from ser import audio, markdown
from ser.cli import UserError
from ser.config import kind_of, load_kind
from ser.datadir import read_table
from ser.draw_results import drawn, log_files
from ser.epochs import read_log
from ser.files import whole
from ser.metrics import METRICS
from ser.summary import confusion_of

if TYPE_CHECKING:
    from ser.config import Protocol, System
    from ser.recipe import Report
    from ser.results import Results
    from ser.runs import Run
    from ser.scores import Scores

    Place = tuple[str, str]  # names of a system and a protocol

ASSETS = Path(__file__).parent / "page_assets"
WAVS = Path("data/all/wav.scp")
POINTS = 200  # of a waveform's outline and of a curve of attention, which share their times
SCORES_SIZE = 6_000_000  # characters: with more runs, only some keep their utterances
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
CURVES = ("train_loss", "dev_loss", "train_wa", "dev_wa")  # keys of epochs.jsonl


@dataclass
class Recordings:
    """What the page knows of the utterances that it lists, by the order in which they are met.

    folder: of the page, to which addresses are relative. wavs: wav.scp, {} if not there. speakers: of each utterance.
    """

    folder: Path
    wavs: Mapping[str, str]
    speakers: Mapping[str, str]
    numbers: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    content: list[dict[str, Any]] = field(default_factory=list)

    def number(self, utt: str) -> int:
        """The place of an utterance in `content`."""
        if utt not in self.numbers:
            self.numbers[utt] = len(self.content)
            self.content.append({"utt": utt, "speaker": self.speakers.get(utt, ""), **self.sound(utt)})
        return self.numbers[utt]

    def sound(self, utt: str) -> dict[str, Any]:
        """An utterance's recording: its address, its length in seconds, and its outline; or why there is no sound."""
        place = self.wavs.get(utt)
        if place is None:
            return {
                "note": f"{WAVS} does not list this recording." if self.wavs else f"No sound: there is no {WAVS} here."
            }
        if audio.is_pipe(place):
            return {"note": "No sound: the recording is the output of a shell command."}
        try:
            samples, rate = audio.read(place)
        except UserError as error:
            return {"note": f"No sound: {error}"}
        self.seconds[utt] = len(samples) / rate
        address = quote(os.path.relpath(place, self.folder), errors="surrogateescape")
        return {"address": address, "seconds": round(len(samples) / rate, 3), "outline": packed(outline(samples))}


def write(path: Path, report: "Report", lines: Sequence[str]) -> None:
    """Write the page of a recipe. lines: RESULTS.md. Call it in the recipe's folder."""
    tables = markdown.to_html("\n".join(lines), lambda address: embedded(path.parent / address, address))
    tables = tables.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    sections = re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', tables)
    scripts = [read("uPlot.iife.min.js"), read("page.js")]
    page = Template(read("page.html")).substitute(
        title=escape(report.corpus),
        # No other script runs, and nothing is fetched, even if a name were not escaped.
        scripts=" ".join(f"'sha256-{checksum(script)}'" for script in scripts),
        styles=read("uPlot.min.css") + read("page.css"),
        sections="".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in sections),
        tables=tables,
        data=as_json(gather(path.parent, report)),
        uplot=scripts[0],
        page=scripts[1],
    )
    with whole(path) as stream:
        stream.write(page)


def read(name: str) -> str:
    """A file of page_assets."""
    return (ASSETS / name).read_text(encoding="utf-8")


def checksum(script: str) -> str:
    """The SHA-256 of a script, as a content security policy wants it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def as_json(data: Any) -> str:
    """JSON that can stand within <script>: without "<" it holds no tag, and no end of the script."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def embedded(picture: Path, address: str) -> str:
    """A PNG file as an address that contains it; the address if there is no such file."""
    if not picture.is_file():
        return address
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def gather(folder: Path, report: "Report") -> dict[str, Any]:
    """The numbers that the page shows. folder: that of the page."""
    systems = {system.name: system for _, system in report.systems}
    protocols = {protocol.name: protocol for protocol in report.protocols}
    found = {place: results for place, results in report.found.items() if results.shown}
    rows = {place: row_of(systems[place[0]], protocols[place[1]], results) for place, results in found.items()}
    recordings = Recordings(folder, read_wavs(), report.speakers)
    sets: list[dict[str, Any]] = []
    left = SCORES_SIZE
    for place, name in in_turn(found):
        scores = found[place].shown[name]
        answers = answers_of(scores)
        if len(answers) <= left:
            left -= len(answers)
            rows[place]["runs"][name] |= {"set": set_of(scores, recordings, sets), "answers": answers}
    for place, row in rows.items():
        if report.main in ("", place[0]):  # a network runs on all its test utterances: minutes for each row
            row |= attention(row, found[place], recordings)
    return {
        "corpus": report.corpus,
        "main": report.main,
        "systems": {system: systems[system].description for system, _ in found},
        "protocols": {protocol: protocols[protocol].description for _, protocol in found},
        "utts": recordings.content,
        "sets": sets,
        "rows": list(rows.values()),
    }


def read_wavs() -> dict[str, str]:
    """wav.scp; {} without one."""
    return read_table(WAVS) if WAVS.exists() else {}


def in_turn(found: "Mapping[Place, Results]") -> "list[tuple[Place, str]]":
    """The names of all runs: the first run of each row, then the second of each, and so on."""
    names = {place: list(results.shown) for place, results in found.items()}
    most = max(map(len, names.values()), default=0)
    return [(place, of_row[turn]) for turn in range(most) for place, of_row in names.items() if turn < len(of_row)]


def row_of(system: "System", protocol: "Protocol", results: "Results") -> dict[str, Any]:
    """The runs of a system under a protocol, without their utterances: fold, seed, WA, UA, confusion matrix and
    learning curves of each, and the points of t-SNE."""
    logs = {} if protocol.noise else log_files(system, protocol, results)  # noise is added only in testing
    runs = {}
    for name, scores in results.shown.items():
        counts = confusion_of(scores)
        of_run: dict[str, Any] = {key: f"{METRICS[key].of(counts):.1f}" for key in ("wa", "ua")}  # as in RESULTS.md
        runs[name] = of_run | {"counts": counts.tolist()}
        if name in logs:
            runs[name]["curves"] = curves(logs[name])
    row = {
        "system": system.name,
        "protocol": protocol.name,
        "classes": next(iter(results.shown.values())).classes,
        "part": "development" if protocol.select == "dev" else "test",  # what selects the epoch
        "runs": runs,
    }
    picture = drawn(system, protocol, results).get("tsne")
    return row | ({"tsne": points(picture.with_suffix(".txt"))} if picture else {})


def curves(log: Path) -> dict[str, list[float]]:
    """The curves in a run's epochs.jsonl, by key, one value per epoch."""
    lines = read_log(log)
    return {key: [float(f"{line[key]:.4g}") for line in lines] for key in CURVES if all(key in line for line in lines)}


def points(path: Path) -> dict[str, Any]:
    """The points of t-SNE in the text file of a figure by ser.draw_run: for each utterance its name, its class, and
    its places by the input features and by the output representation. title: the run and how it was drawn."""
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    words = [line.split() for line in lines if not line.startswith(("# ", "utt "))]
    return {
        "title": head.removeprefix("# "),
        "utts": [utt for utt, *_ in words],
        "classes": [name for _, name, *_ in words],
        "places": [[round(float(place), 1) for place in places] for _, _, *places in words],
    }


def answers_of(scores: "Scores") -> str:
    """What a run answered: for each utterance the number of the predicted class, then the probability of each class
    in tenths of a per cent. Each number has two digits of base 36."""
    numbers = np.column_stack([scores.predicted, np.rint(1000 * scores.posteriors).astype(int)])
    return "".join(DIGITS[number // 36] + DIGITS[number % 36] for number in numbers.ravel().tolist())


def set_of(scores: "Scores", recordings: Recordings, sets: list[dict[str, Any]]) -> int:
    """The number in `sets` of a run's utterances and their true classes; runs with the same ones share it."""
    own = {"utts": [recordings.number(utt) for utt in scores.utts], "true": scores.true.tolist()}
    if own not in sets:
        sets.append(own)
    return sets.index(own)


def attention(row: Mapping[str, Any], results: "Results", recordings: Recordings) -> dict[str, Any]:
    """The attention of one of a row's runs over its recordings: the first whose network is in exp/. {} if none is, or
    without attention; a note if it cannot be computed."""
    from ser.runs import read_run

    for name, scores in results.shown.items():
        folder = Path("exp", row["system"], row["protocol"], name)
        if "answers" not in row["runs"][name] or not (folder / "done").exists():
            continue
        try:
            run = read_run(folder)
            if run.system.learner == "network" and run.model == scores.about.get("model"):
                curves = attention_of(run, recordings)
                return {"attention": {"run": name, "curves": curves}} if curves else {}
        except UserError as error:
            return {"attention": {"run": name, "note": str(error)}}
    return {}


def attention_of(run: "Run", recordings: Recordings) -> dict[int, dict[str, Any]]:
    """For each test utterance with sound, by its number, and each attention, by its name: the highest weight of a frame
    (1 is an equal share) and the weights at POINTS times of the recording as shares of it."""
    from ser.draw_run import see
    from ser.reading import read_run_fold

    network = load_kind("model", kind_of(run.system.model), run.system.name).Network
    if not hasattr(run.feature, "heard") or not hasattr(network, "frame_weights"):
        return {}  # without `heard` its frames are not in time order
    run.refuse_changes(ignore=["trainer"])
    seen = see(run, read_run_fold(run), "cpu")
    found = {}
    for place, utt in enumerate(seen.utts):
        if utt in recordings.seconds and seen.weights:
            seconds, n_frames = recordings.seconds[utt], len(seen.frames[place])
            at, times = (np.arange(POINTS) + 0.5) * seconds / POINTS, frame_times(run, seconds, n_frames)
            heard = (at >= times[0]) & (at < times[-1] + hop(run))  # the rest was cut off
            found[recordings.numbers[utt]] = {
                name: curve(np.where(heard, np.interp(at, times, weights[place]), 0))
                for name, weights in seen.weights.items()
            }
    return found


def hop(run: "Run") -> float:
    """Seconds from one frame to the next."""
    feature: Any = run.system.feature
    return feature.hop_length / feature.sample_rate


def frame_times(run: "Run", seconds: float, n_frames: int) -> np.ndarray:
    """The time (T,) of each frame in a recording, in seconds. A feature that pads the front begins before it."""
    feature: Any = run.system.feature
    length = round(seconds * feature.sample_rate)
    heard = len(run.feature.heard(np.zeros(length, np.float32), feature))
    padded = max(heard - length, 0) if getattr(feature, "pad", "end") == "front" else 0
    return np.arange(n_frames) * hop(run) - padded / feature.sample_rate


def curve(weights: np.ndarray) -> dict[str, Any]:
    """Weights (POINTS,) as their highest and shares of it."""
    highest = float(weights.max())
    return {"highest": round(highest, 2), "shares": packed(weights / (highest or 1))}


def outline(samples: np.ndarray) -> np.ndarray:
    """The loudest sample of each of POINTS equal parts (POINTS,) of samples (N,), as shares of the loudest of all."""
    starts = np.arange(POINTS) * len(samples) // POINTS
    loudest = np.maximum.reduceat(np.abs(samples), starts)
    return loudest / (loudest.max() or 1)


def packed(shares: np.ndarray) -> str:
    """Numbers from 0 to 1 as base64 of one byte each."""
    return base64.b64encode(np.rint(255 * shares).astype(np.uint8).tobytes()).decode()
