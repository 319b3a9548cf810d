"""Add white noise to recordings."""

import hashlib

import numpy as np


def add(samples: np.ndarray, noise: str, utt: str) -> np.ndarray:
    """Add Gaussian white noise to samples (N,), float32, full scale +-1; always the same for an utterance.

    noise: "snr10": 10 dB below the mean power of the samples; "deviation1": standard deviation 1,
    independent of the level of the samples.
    """
    seed = hashlib.sha256(f"{utt} {noise}".encode()).digest()
    white = np.random.default_rng(list(seed)).standard_normal(len(samples), np.float32)
    if noise.startswith("snr"):
        power = np.mean(np.square(samples, dtype=np.float64))
        deviation = np.sqrt(power) * 10 ** (-float(noise.removeprefix("snr")) / 20)
    else:
        deviation = float(noise.removeprefix("deviation"))
    return samples + np.float32(deviation) * white
