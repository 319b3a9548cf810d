"""Speed of stage 2 against a plain loop of soundfile and librosa over the same files, one core each.

ours: `python -m ser.dump_features`, the whole command, archives written, with 1 and with 2 jobs.
plain: read, resample, librosa.stft, melspectrogram, power_to_db, numpy.save, in one process with one
thread, its imports counted too.

    . ./path.sh; python tests/benchmarks/features.py egs/ravdess/data/all egs/ravdess/conf/sherman/cnn4_blstm_attention.yaml
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

PLAIN = """
import sys
import librosa, numpy, soundfile
from ser.config import read_system
from ser.datadir import read_table
data, system, out = sys.argv[1:]
c = read_system(system).feature
for utt, path in read_table(data + "/wav.scp").items():
    y, rate = soundfile.read(path, dtype="float32", always_2d=True)
    y = y.mean(1)
    if rate != c.sample_rate:
        y = librosa.resample(y, orig_sr=rate, target_sr=c.sample_rate)
    if c.duration:
        n = round(c.duration * c.sample_rate)
        y = y[:n]
        y = numpy.pad(y, (n - len(y), 0) if c.pad == "front" else (0, n - len(y)))
    S = numpy.abs(librosa.stft(y, n_fft=c.n_fft, win_length=c.win_length, hop_length=c.hop_length, window=c.window)) ** 2
    mel = librosa.feature.melspectrogram(S=S, sr=c.sample_rate, n_mels=c.n_mels, fmin=c.fmin, fmax=c.fmax)
    numpy.save(f"{out}/{utt}.npy", librosa.power_to_db(mel, ref=numpy.max, top_db=c.top_db).T)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="data directory")
    parser.add_argument("system", help="system file, for its feature")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of each, in turn; the median counts (default 3)"
    )
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def ours(jobs: int) -> list[str]:
        return [
            sys.executable,
            "-m",
            "ser.dump_features",
            "--systems",
            args.system,
            "--nj",
            str(jobs),
            args.data,
        ]

    ways = {
        "plain loop": [sys.executable, "-c", PLAIN, args.data, args.system],
        "1 job": ours(1),
        "2 jobs": ours(2),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds + 1):  # the first round warms the file cache up and is not counted
        for name, command in ways.items():
            with tempfile.TemporaryDirectory() as out:
                started = time.perf_counter()
                subprocess.run([*command, out], check=True, stdout=subprocess.DEVNULL)
                seconds[name].append(time.perf_counter() - started)
    medians = {name: sorted(spent[1:])[args.rounds // 2] for name, spent in seconds.items()}
    for name, median in medians.items():
        print(
            f"{name:10} {median:6.1f} s   {medians['plain loop'] / median:4.2f} times the plain loop's speed"
        )


if __name__ == "__main__":
    main()
