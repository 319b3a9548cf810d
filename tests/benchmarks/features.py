"""Speed of stage 2, compared with a plain loop of soundfile and librosa over the same files, on one core each.

ours: `python -m ser.dump_features`, the whole command including writing the archives, with 1 and with 2 jobs.
plain: one process with one thread, including its imports. Each recording is read and resampled once; then librosa is
called once for each feature of each system: stft, melspectrogram and power_to_db for logmel; mfcc, and delta for each
derivative, for mfcc; those of melspectrogram, mfcc, zero_crossing_rate and rms that the system uses, and their means
over time, for means; the eight features of Sherman et al. for timbre; the five of Issa et al. and their means for
tonal; then numpy.save. Systems with the same feature count once.

    cd egs/ravdess; . ./path.sh
    python ../../tests/benchmarks/features.py data/all conf/sherman/cnn4_blstm_attention.yaml
    python ../../tests/benchmarks/features.py data/all ../iemocap/conf/sherman/timbre_cnn4_blstm_attention.yaml
    python ../../tests/benchmarks/features.py --rounds 1 data/all conf/issa/cnn1d.yaml
    cd ../tess
    python ../../tests/benchmarks/features.py data/all conf/bledea/{mel,mel_mfcc_rms,mel_mfcc_zcr_rms}.yaml
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from statistics import median

PLAIN = """
import sys
import librosa, numpy, soundfile
from ser.config import as_dict, kind_of, read_system
from ser.datadir import read_table
*systems, data, out = sys.argv[1:]

def logmel(y, c):
    if c.duration:
        n = round(c.duration * c.sample_rate)
        y = y[:n]
        y = numpy.pad(y, (n - len(y), 0) if c.pad == "front" else (0, n - len(y)))
    sizes = {"n_fft": c.n_fft, "win_length": c.win_length, "hop_length": c.hop_length}
    S = numpy.abs(librosa.stft(y, window=c.window, **sizes)) ** 2
    mel = librosa.feature.melspectrogram(S=S, sr=c.sample_rate, n_mels=c.n_mels, fmin=c.fmin, fmax=c.fmax)
    return librosa.power_to_db(mel, ref=numpy.max, top_db=c.top_db).T

def means(y, c):
    f = librosa.feature
    mel = {"sr": c.sample_rate, "n_fft": c.n_fft, "hop_length": c.hop_length, "n_mels": c.n_mels}
    frame = {"frame_length": c.n_fft, "hop_length": c.hop_length}
    calls = {
        "mel": lambda: f.melspectrogram(y=y, **mel),
        "mfcc": lambda: f.mfcc(y=y, n_mfcc=c.n_mfcc, **mel),
        "zcr": lambda: f.zero_crossing_rate(y, **frame),
        "rms": lambda: f.rms(y=y, **frame),
    }
    return numpy.concatenate([calls[part]().mean(1) for part in c.parts])[None]

def mfcc(y, c):
    sizes = {"n_fft": c.n_fft, "win_length": c.win_length, "hop_length": c.hop_length}
    mel = {"n_mels": c.n_mels, "fmin": c.fmin, "fmax": c.fmax}
    found = librosa.feature.mfcc(y=y, sr=c.sample_rate, n_mfcc=c.n_mfcc, window=c.window, **sizes, **mel)
    deltas = [librosa.feature.delta(found, order=order) for order in range(1, c.derivatives + 1)]
    return numpy.concatenate([found, *deltas]).T

def timbre(y, c):
    n = round(c.duration * c.sample_rate)
    y = numpy.pad(y[:n], (max(n - len(y), 0), 0))
    f, frame = librosa.feature, {"n_fft": c.n_fft, "hop_length": c.hop_length}
    mfcc = f.mfcc(y=y, sr=c.sample_rate, n_mfcc=c.n_mfcc, n_mels=c.n_mels, **frame)
    rest = [
        f.delta(mfcc),
        f.spectral_centroid(y=y, sr=c.sample_rate, **frame),
        f.spectral_contrast(y=y, sr=c.sample_rate, **frame),
        f.spectral_bandwidth(y=y, sr=c.sample_rate, **frame),
        f.spectral_rolloff(y=y, sr=c.sample_rate, **frame),
        f.zero_crossing_rate(y, frame_length=c.n_fft, hop_length=c.hop_length),
        f.rms(S=numpy.abs(librosa.stft(y, **frame)), frame_length=c.n_fft),
    ]
    return numpy.concatenate([mfcc, *rest]).T

def tonal(y, c):
    f, sizes = librosa.feature, {"n_fft": c.n_fft, "hop_length": c.hop_length}
    S = numpy.abs(librosa.stft(y, **sizes))
    found = [
        f.mfcc(y=y, sr=c.sample_rate, n_mfcc=c.n_mfcc, n_mels=c.n_mels, **sizes),
        f.chroma_stft(S=S, sr=c.sample_rate),
        f.melspectrogram(y=y, sr=c.sample_rate, n_mels=c.n_mels, **sizes),
        f.spectral_contrast(S=S, sr=c.sample_rate),
        f.tonnetz(y=librosa.effects.harmonic(y, **sizes), sr=c.sample_rate, hop_length=c.hop_length),
    ]
    return numpy.concatenate([values.mean(1) for values in found])[None]

features = [read_system(system).feature for system in systems]
features = {str(i): f for i, f in enumerate(features) if as_dict(f) not in map(as_dict, features[:i])}
for utt, path in read_table(data + "/wav.scp").items():
    y, rate = soundfile.read(path, dtype="float32", always_2d=True)
    samples = {rate: y.mean(1)}
    for name, c in features.items():
        if c.sample_rate not in samples:
            samples[c.sample_rate] = librosa.resample(samples[rate], orig_sr=rate, target_sr=c.sample_rate)
        numpy.save(f"{out}/{name}.{utt}.npy", globals()[kind_of(c)](samples[c.sample_rate], c))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="data directory")
    parser.add_argument("systems", nargs="+", metavar="system", help="system files, for their features")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each, in turn; the median counts (default 3)")
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    ours = [sys.executable, "-m", "ser.dump_features", "--systems", *args.systems, "--nj"]
    ways = {
        "plain loop": [sys.executable, "-c", PLAIN, *args.systems],
        "1 job": [*ours, "1"],
        "2 jobs": [*ours, "2"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cores: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds + 1):  # the first round warms up the file cache and is not counted
        for name, command in ways.items():
            with tempfile.TemporaryDirectory() as out:
                started, used = time.perf_counter(), core_seconds()
                subprocess.run([*command, args.data, out], check=True, stdout=subprocess.DEVNULL)
                seconds[name].append(time.perf_counter() - started)
                cores[name].append(core_seconds() - used)
    wall, core = ({name: median(spent[1:]) for name, spent in kind.items()} for kind in (seconds, cores))
    for name in ways:
        print(
            f"{name:10} {wall[name]:6.1f} s, {wall['plain loop'] / wall[name]:4.2f} times the plain loop's "
            f"speed; of a core {core[name]:6.1f} s, {core['plain loop'] / core[name]:4.2f} times"
        )


def core_seconds() -> float:
    """CPU seconds of the processes started by this one, which depend little on other load."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
