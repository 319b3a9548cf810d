"""The 32 descriptors of ser.features.lld and those of openSMILE's emobase: agreement of each, and speed.

Agreement: the median over recordings of the correlation with the same descriptor of emobase in the same frames, and of
the root mean square difference divided by emobase's standard deviation. Both get samples truncated to 16 bits, as in
openSMILE's package, and emobase is not smoothed (smaWin = 1), since ours are not. The last rows account for
peculiarities of emobase. Its F0 comes 20 ms late. Its intensity sums only the first two samples of a frame (root of
intensity: compared with that; meant: compared with the sum over the frame); IS09_emotion, by the same authors, has a
root mean square, but of pre-emphasised frames. A zero between zeros counts as a crossing, so that digital silence has
a rate of 1 (heard: only frames with fewer than 5 zeros).

Speed: times real time on one core, for samples in memory: ours, all 32; emobase, its 26 descriptors without their
differences, by the package's process_signal. Also for the recordings concatenated and cut to minutes, where the
overhead of a call matters little. The two alternate, after a round that is not counted; medians over rounds.

    python -m ser.prepare_data tess .../tess /tmp/tess
    python tests/benchmarks/lld.py /tmp/tess --utterances 200

openSMILE is not installed with the recipes: `pip install opensmile`.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402

from ser import audio  # noqa: E402
from ser.datadir import read_table  # noqa: E402
from ser.dsp import frames  # noqa: E402
from ser.features import lld  # noqa: E402

MISSING = "{0} is missing; `pip install {0}` in a separate environment"

RATE = 16000
CONFIG = lld.Config(sample_rate=RATE, win_length=400, hop_length=160, n_fft=512)
NAMES = ["F0", "voicing", "energy", "crossings", *(f"mfcc {i}" for i in range(1, 13))]
EMOBASE = ["F0", "voiceProb", "pcm_intensity", "pcm_zcr", *(f"mfcc[{i}]" for i in range(1, 13))]


def emobase(folder: Path, level: str, smoothed: bool, name: str = "emobase/emobase.conf") -> Any:
    """openSMILE's extractor; without smoothing, from a modified copy of its configuration in `folder`."""
    try:
        import opensmile
    except ImportError:
        sys.exit(MISSING.format("opensmile"))
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if smoothed:
        return opensmile.Smile(opensmile.FeatureSet.emobase, level)
    config = folder / "config"
    if not config.exists():
        shutil.copytree(Path(opensmile.__file__).parent / "core" / "config", config)
    for path in (config / "emobase" / "emobase.conf", config / "is09-13" / "IS09_emotion_core.lld.conf.inc"):
        text = path.read_text(encoding="latin-1")
        path.write_text(text.replace("smaWin = 3", "smaWin = 1"), encoding="latin-1")
    return opensmile.Smile(str(config / name), level)


def agreement(recordings: list[np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        static, change = (emobase(Path(folder), level, smoothed=False) for level in ("lld", "lld_de"))
        other = emobase(Path(folder), "lld", smoothed=False, name="is09-13/IS09_emotion.conf")
        correlations, errors = [], []
        for samples in recordings:
            samples = (samples * 32768).astype(np.int16) / np.float32(32768)
            theirs = static.process_signal(samples, RATE)
            theirs = theirs.rename(columns=lambda column: column.replace("_sma", ""))
            theirs_change = change.process_signal(samples, RATE)
            theirs_change = theirs_change.rename(columns=lambda column: column.replace("_sma_de", ""))
            rms = other.process_signal(samples, RATE)["pcm_RMSenergy_sma"].to_numpy()
            # their frames start at the first sample; those of F0 and voicing have 640 samples, the others 400
            late = lld.extract(samples, CONFIG)[2:]
            early = lld.extract(samples[40:], CONFIG)[1:]
            windows = frames(samples[40:], 400, 160)[1:]
            n = min(len(late), len(early), len(theirs), len(theirs_change), len(rms))
            inner = slice(5, n - 5)  # ours extend beyond the ends, theirs do not
            ours = np.hstack([late[:, :2][:n], early[:, 2:16][:n], late[:, 16:18][:n], early[:, 18:][:n]])
            reference = np.hstack([theirs[EMOBASE][:n], theirs_change[EMOBASE][:n]])
            windows = windows[:n].astype(np.float64)
            meant = np.sqrt(windows**2 @ np.hamming(400) / np.hamming(400).sum())
            pairs = [
                *zip(ours[inner].T, reference[inner].T, strict=True),
                (ours[inner, 0], reference[7 : n - 3, 0]),
                (ours[inner, 2], np.sqrt(reference[inner, 2])),
                (ours[inner, 2], meant[inner]),
                (ours[inner, 2], rms[inner]),
            ]
            audible = np.flatnonzero((windows[inner] == 0).sum(1) < 5)
            pairs.append((ours[inner, 3][audible], reference[inner, 3][audible]))
            correlations.append([correlation(x, y) for x, y in pairs])
            errors.append([float(np.sqrt(np.mean((x - y) ** 2)) / max(np.std(y), 1e-20)) for x, y in pairs])
    more = [
        "F0, 20 ms earlier",
        "energy, root of intensity",
        "energy, meant",
        "energy, IS09_emotion",
        "crossings, heard",
    ]
    names = [*NAMES, *(f"change of {name}" for name in NAMES), *more]
    print(f"{'':28}{'correlation':>12}{'difference':>12}")
    for name, corr, error in zip(names, np.nanmedian(correlations, axis=0), np.median(errors, axis=0), strict=True):
        print(f"{name:28}{corr:12.5f}{error:12.4f}")


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if len(x) > 1 and np.std(x) and np.std(y) else np.nan


def speed(recordings: list[np.ndarray], extractor: Any, rounds: int) -> None:
    joined = np.concatenate(recordings)
    minutes = [piece for piece in np.split(joined, range(60 * RATE, len(joined), 60 * RATE)) if len(piece) > RATE]
    ways = {
        "ours": lambda samples: lld.extract(samples, CONFIG),
        "emobase": lambda samples: extractor.process_signal(samples, RATE),
    }
    for what, pieces in (("recordings", recordings), ("minutes", minutes)):
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(rounds + 1):
            for name, extract in ways.items():
                wall, core = time.perf_counter(), time.process_time()
                for samples in pieces:
                    extract(samples)
                spent[name].append((time.perf_counter() - wall, time.process_time() - core))
        length = sum(map(len, pieces)) / RATE
        for name, times in spent.items():
            wall, core = (length / median(column) for column in zip(*times[1:], strict=True))
            print(
                f"{len(pieces):4} {what:10} {name:8}{core:6.0f} times real time by processor time, "
                f"{wall:6.0f} by the clock"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, help="data directories")
    parser.add_argument("--utterances", type=int, default=200, help="of each, drawn at random (default 200)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (default 3)")
    args = parser.parse_args()
    extractor = emobase(Path(), "lld", smoothed=True)
    for data in args.data:
        paths = sorted(read_table(data / "wav.scp").values())
        paths = random.Random(1).sample(paths, min(args.utterances, len(paths)))
        recordings = [audio.read(path, RATE)[0] for path in paths]
        print(f"{data}: {len(recordings)} recordings, {sum(map(len, recordings)) / RATE:.0f} s")
        agreement(recordings)
        speed(recordings, extractor, args.rounds)


if __name__ == "__main__":
    main()
