"""Read recordings, from files or from the output of commands, into samples."""

import hashlib
import io
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ser import containers
from ser.cli import UserError

if TYPE_CHECKING:
    import numpy as np

# Hz. Even telephone speech is far above 1000. Damaged headers may say 1, and resampling one second of such
# a recording would fill the memory.
RATES = range(1000, 1_000_000)
CHANNELS = 32  # at most; damaged headers claim hundreds
# At most, per byte of a file: FLAC compresses digital silence this well. Damaged headers claim any number.
SAMPLES_PER_BYTE = 10_000
BLOCK = 2**20  # samples read at a time, so that memory depends on the file's content and not on its header
# Of full scale. Float samples may slightly exceed 1; samples on an integer scale exceed this even when quiet.
LOUDEST = 10
# The mean of the channels must keep this share of the loudest channel's energy (-10 dB). It does if one
# channel of two is dead, or if the two are independent; not if they cancel, or if one of six is live.
KEPT_ENERGY = 0.1
# Clipping leaves flat stretches: at least this many consecutive samples at the exact maximum or minimum of
# the recording. A loud recording that is not clipped reaches its extreme at a single sample: speech curves
# so much there that even the next 16-bit sample is lower (by 3 steps for a full-scale sine of 100 Hz at
# 48 kHz; only below 60 Hz would three samples be equal).
CLIPPED_RUN = 3
# Of full scale (-1 dB). Quieter recordings have flat extremes without clipping, since they span few
# quantisation steps. Not full scale itself: clipped audio is often turned down or mixed to mono later.
CLIPPED_LEVEL = 0.89


class Header(NamedTuple):
    """rate: Hz; channels; frames: samples per channel, at least 1."""

    rate: int
    channels: int
    frames: int


class Output(io.BytesIO):
    """The output of a command, named in messages as in wav.scp."""

    def __init__(self, content: bytes, command: str) -> None:
        super().__init__(content)
        self.command = command

    def __str__(self) -> str:
        return self.command


def is_pipe(place: str) -> bool:
    """Whether a path in wav.scp is a shell command that prints a recording, as in Kaldi."""
    return place.endswith("|")


def run(command: str) -> Output:
    """Run such a command in bash and return its output, a recording for `header` and `read`.

    Raises UserError if the command, or a part of a pipeline, fails.
    """
    # pipefail: without it a decoder that fails within a pipeline would leave a shorter recording
    shell = ["bash", "-o", "pipefail", "-c", command.removesuffix("|")]
    done = subprocess.run(shell, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())[-200:]
        raise UserError(f"{command}: exit status {done.returncode} ({reason}); fix the command")
    return Output(done.stdout, command)


def recording(place: str, entry: str) -> str | Output:
    """The recording for a path in wav.scp; a command is run.

    Raises UserError as `run` does, naming the `entry` (table and utterance).
    """
    try:
        return run(place) if is_pipe(place) else place
    except UserError as error:
        raise UserError(f"{entry}: {error}") from None


def header(recording: str | Path | Output) -> Header:
    """Read the header of a recording, without decoding the samples.

    Only formats that can be checked for completeness are accepted (ser/containers.py): WAV (also RF64 and
    W64), FLAC, AIFF, AU, CAF, IFF (8SVX, 16SV), NIST SPHERE, Ogg and MP3, recognised by content, not by
    suffix. Raises UserError naming the file if it is missing, empty, in another format or shorter than its
    header says, or if its sampling rate, channels or number of samples are impossible.
    """
    import soundfile

    try:
        if isinstance(recording, Output):
            size, promise = len(recording.getbuffer()), containers.promise(recording)
        else:
            with open(recording, "rb") as stream:
                size, promise = stream.seek(0, 2), containers.promise(stream)
    except OSError as error:
        raise UserError(f"{recording}: {error.strerror}; check the path and its permissions") from None
    except ValueError as error:
        raise UserError(f"{recording}: {error}") from None
    if size == 0:
        raise UserError(f"{recording}: empty file; fetch it again")
    if promise and promise.end > size:  # libsndfile would silently shorten it
        raise UserError(f"{recording}: cut short: {promise.end - size} bytes are missing; fetch it again")
    rate = promise and promise.rate
    if rate is None or rate in RATES:
        try:
            info = soundfile.info(_source(recording))
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless, named .raw
            raise _undecodable(recording, error) from None
        if not promise and info.format != "FLAC":
            raise UserError(
                f"{recording}: cannot check that a file of this format, {info.format_info}, is complete; "
                "convert the original to WAV or FLAC"
            )
        rate = info.samplerate
    if rate not in RATES:
        raise UserError(f"{recording}: a sampling rate of {rate} Hz in its header; fetch it again")
    if info.channels > CHANNELS:
        raise UserError(f"{recording}: {info.channels} channels in its header; fetch it again")
    if info.frames == 0:
        raise UserError(f"{recording}: no samples in it; fetch it again")
    if info.frames * info.channels > SAMPLES_PER_BYTE * size:  # FLAC from a pipe claims the maximum
        raise UserError(
            f"{recording}: its header says {info.frames} samples in {size} bytes: it is damaged, or was written "
            "to a pipe; fetch it again, or convert it to WAV"
        )
    return Header(info.samplerate, info.channels, info.frames)


def read(recording: str | Path | Output, rate: int | None = None) -> tuple["np.ndarray", int]:
    """Read a recording as one channel.

    rate: sampling rate in Hz to resample to (soxr, high quality); None keeps the recording's own.
    Returns the samples, float32 (N,), full scale at +-1, channels mixed down to their mean, and
    their rate in Hz. Raises UserError as `header` does, and if the recording cannot be decoded to
    its end, contains infinities or NaN, is not scaled to +-1 (exceeds LOUDEST), is silent (all
    samples are equal), or loses too much energy when mixed down (KEPT_ENERGY).
    """
    import numpy as np
    import soundfile

    promised = header(recording)
    own_rate, blocks = promised.rate, []
    try:
        with soundfile.SoundFile(_source(recording)) as stream:
            while len(block := stream.read(BLOCK // promised.channels, dtype="float32", always_2d=True)):
                blocks.append(block)
    except soundfile.LibsndfileError as error:
        raise _undecodable(recording, error) from None
    lost = promised.frames - sum(map(len, blocks))
    if lost > 0:
        raise UserError(f"{recording}: cut short: {lost} samples are missing; fetch it again")
    samples = np.concatenate(blocks)
    if not np.isfinite(samples).all():
        raise UserError(f"{recording}: infinite or undefined samples; fetch it again")
    loudest = max(samples.max(), -samples.min())
    if loudest > LOUDEST:  # resampling could make the largest infinite
        raise UserError(
            f"{recording}: samples up to {loudest:g}, where full scale is 1; divide them by their full "
            "scale (32768 for 16 bits), or fetch it again"
        )
    mono = samples.mean(axis=1) if promised.channels > 1 else samples[:, 0]
    if promised.channels > 1:
        energies = samples.var(axis=0, dtype=np.float64)
        best = energies.argmax()
        kept = mono.var(dtype=np.float64)
        if kept < KEPT_ENERGY * energies[best]:
            raise UserError(
                f"{recording}: the mean of its {promised.channels} channels has {kept / energies[best]:.1%} of "
                f"the energy of channel {best + 1}: they cancel, or the others are dead; extract that channel "
                "to a file of its own"
            )
    if mono.min() == mono.max():
        raise UserError(f"{recording}: silent: every sample is {mono[0]:g}; fetch it again or leave it out")
    if rate is None:
        return mono, own_rate
    from ser.extract import resample

    return resample(mono, own_rate, rate), rate


def md5(samples: "np.ndarray") -> str:
    """MD5 of samples as `read` returns them at the recording's own rate; utt2md5 holds it."""
    return hashlib.md5(samples.tobytes(), usedforsecurity=False).hexdigest()


def is_clipped(samples: "np.ndarray") -> bool:
    """Whether samples (N,), full scale at +-1, are flat at their extremes, as clipping leaves them."""
    for extreme in (samples.max(), samples.min()):
        if abs(extreme) >= CLIPPED_LEVEL:
            places = (samples == extreme).nonzero()[0]
            # distance between the first and the last sample of a flat run
            if (places[CLIPPED_RUN - 1 :] - places[: 1 - CLIPPED_RUN] == CLIPPED_RUN - 1).any():
                return True
    return False


def _source(recording: str | Path | Output) -> bytes | Output:
    """The recording in a form that soundfile opens."""
    if isinstance(recording, Output):
        recording.seek(0)
        return recording
    return os.fsencode(recording)


def _undecodable(recording: str | Path | Output, error: Exception) -> UserError:
    reason = getattr(error, "error_string", str(error)).rstrip(".")
    return UserError(f"{recording}: cannot be read as a recording ({reason}); fetch it again")
