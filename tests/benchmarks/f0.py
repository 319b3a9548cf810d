"""F0 of ser.features.lld and of other trackers, compared with Praat's at the same times.

The reference is Praat's `Sound: To Pitch` with its defaults, 75 to 600 Hz, one value every 10 ms, on the 16 kHz
samples that all trackers get. The others: ours; Praat on the recording at its original rate; openSMILE's emobase
without smoothing; librosa's pyin and yin; torchaudio's detect_pitch_frequency. The last two do not decide between
voiced and unvoiced. Free settings are chosen for the best agreement: windows of 32 ms for librosa (64 and 128 ms lose
10 and 20 points), a median of 10 values for torchaudio. torchaudio's values come 20 ms early and emobase's 20 ms late;
both are shifted.

semitone, gross, cents: among the frames that both call voiced, the shares within a semitone of Praat and more than
20 % off, and the median distance. missed, false, voicing: the share of Praat's voiced frames that are unvoiced here,
of its unvoiced frames that are voiced here, and of all frames with either error. speed: times real time, in CPU time.

    python -m ser.prepare_data ravdess .../ravdess /tmp/ravdess
    OMP_NUM_THREADS=1 python tests/benchmarks/f0.py /tmp/ravdess --trackers ours praat emobase yin
    OMP_NUM_THREADS=1 python tests/benchmarks/f0.py /tmp/ravdess --utterances 100

Praat and openSMILE are not installed with the recipes: `pip install praat-parselmouth opensmile`.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
from lld import MISSING, emobase

from ser import audio
from ser.datadir import read_table
from ser.features import lld

try:
    import parselmouth
except ImportError:
    sys.exit(MISSING.format("praat-parselmouth"))

RATE, HOP = 16000, 160
CONFIG = lld.Config(sample_rate=RATE, win_length=400, hop_length=HOP, n_fft=512)
FMIN, FMAX = CONFIG.f0_min, CONFIG.f0_max


def ours(samples: np.ndarray) -> np.ndarray:
    return lld.pitch(samples - samples.mean(), CONFIG)[0]


def yin(samples: np.ndarray) -> np.ndarray:
    return librosa.yin(samples, fmin=FMIN, fmax=FMAX, sr=RATE, frame_length=512, hop_length=HOP)


def pyin(samples: np.ndarray) -> np.ndarray:
    f0, _, _ = librosa.pyin(samples, fmin=FMIN, fmax=FMAX, sr=RATE, frame_length=512, hop_length=HOP)
    return np.nan_to_num(f0)


def torchaudio(samples: np.ndarray) -> np.ndarray:
    import torch
    from torchaudio.functional import detect_pitch_frequency

    signal = torch.from_numpy(samples)
    f0 = detect_pitch_frequency(signal, RATE, win_length=10, freq_low=FMIN, freq_high=FMAX)
    return np.pad(f0.numpy(), (2, 100), mode="edge")


def smile_tracker(folder: str) -> Callable[[np.ndarray], np.ndarray]:
    extractor = emobase(Path(folder), "lld", smoothed=False)

    def track(samples: np.ndarray) -> np.ndarray:
        return np.pad(extractor.process_signal(samples, RATE)["F0_sma"].to_numpy(), (0, 100))

    return track


def praat(samples: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and F0 in Hz, 0 where unvoiced."""
    found = parselmouth.Sound(samples.astype(np.float64), rate).to_pitch(time_step=HOP / RATE)
    return found.xs(), found.selected_array["frequency"]


def compare(reference: np.ndarray, other: np.ndarray, has_voicing: bool) -> str:
    voiced, called = reference > 0, other > 0
    ratio = other[voiced & called] / reference[voiced & called]
    cents = 1200 * np.abs(np.log2(ratio))
    columns = [np.mean(cents <= 100), np.mean(np.abs(ratio - 1) > 0.2)]
    text = "".join(f"{share:10.3%}" for share in columns) + f"{np.median(cents):10.2f}"
    if not has_voicing:
        return text + 3 * f"{'-':>10}"
    errors = [np.mean(~called[voiced]), np.mean(called[~voiced]), np.mean(called != voiced)]
    return text + "".join(f"{share:10.3%}" for share in errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["ours", "praat", "emobase", "pyin", "yin", "torchaudio"]
    parser.add_argument("data", nargs="+", type=Path, help="data directories")
    parser.add_argument("--trackers", nargs="+", choices=names, default=names)
    parser.add_argument("--utterances", type=int, help="so many of each corpus, drawn at random (default all)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(args, folder)


def run(args: argparse.Namespace, folder: str) -> None:
    trackers: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "ours": ours,
        "pyin": pyin,
        "yin": yin,
        "torchaudio": torchaudio,
    }
    if "emobase" in args.trackers:
        trackers["emobase"] = smile_tracker(folder)
    for data in args.data:
        recordings = sorted(read_table(data / "wav.scp").values())
        if args.utterances:
            recordings = random.Random(1).sample(recordings, args.utterances)
        tracks: dict[str, list[np.ndarray]] = {name: [] for name in ["reference", *args.trackers]}
        seconds = dict.fromkeys(tracks, 0.0)
        total = 0.0
        for recording in recordings:
            samples, _ = audio.read(recording, RATE)
            total += len(samples) / RATE
            started = time.process_time()
            times, reference = praat(samples, RATE)
            seconds["reference"] += time.process_time() - started
            tracks["reference"].append(reference)
            # shift the samples so that the frames of all others are centred at Praat's times
            skipped, offset = divmod(round(times[0] * RATE), HOP)
            for name in args.trackers:
                own, own_rate = audio.read(recording) if name == "praat" else (samples[offset:], RATE)
                started = time.process_time()
                if name == "praat":
                    own_times, f0 = praat(own, own_rate)
                    f0 = f0[np.abs(own_times[:, None] - times).argmin(0)]
                else:
                    f0 = trackers[name](own)[skipped : skipped + len(reference)]
                seconds[name] += time.process_time() - started
                tracks[name].append(f0)
        joined = {name: np.concatenate(parts) for name, parts in tracks.items()}
        print(
            f"{data}: {len(recordings)} recordings, {total / 3600:.2f} h, {len(joined['reference'])} frames, "
            f"{np.mean(joined['reference'] > 0):.1%} voiced; "
            f"Praat at 16 kHz {total / seconds['reference']:.0f} times real time"
        )
        heads = ["semitone", "gross", "cents", "missed", "false", "voicing", "speed"]
        print(" " * 10 + "".join(f"{head:>10}" for head in heads))
        for name in args.trackers:
            row = compare(joined["reference"], joined[name], name not in ("yin", "torchaudio"))
            print(f"{name:10}{row}{total / seconds[name]:10.0f}")


if __name__ == "__main__":
    main()
