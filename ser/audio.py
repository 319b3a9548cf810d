"""Recordings, files on disk or what a command prints, -> samples."""

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

# Hz. From 1000 telephone speech is far, and 1 is what damaged headers come to: resampled, a second of
# such a recording would fill the memory.
RATES = range(1000, 1_000_000)
CHANNELS = 32  # at most; damaged headers come to hundreds
# In a byte of a file, at most: FLAC packs digital silence so. Damaged headers come to any number.
SAMPLES_PER_BYTE = 10_000
BLOCK = 2**20  # samples read at a time: memory follows what is in the file, not what its header claims
# Of full scale. Float samples may pass 1 a little; on the scale of integers they pass this even where quiet.
LOUDEST = 10
# The mean of the channels has at least this share of the loudest one's energy (-10 dB). So it has if one of
# two is dead, or each has its own; not if they cancel, or one of six is live.
KEPT_ENERGY = 0.1
# A clipped stretch is flat: so many neighbours, at least, at the very maximum or minimum of the
# recording. A loud recording that is not clipped comes to its extreme at one sample: speech curves so
# much there that with 16 bits even the next sample lies lower (a sine of full scale and 100 Hz at
# 48 kHz by 3 steps; only below 60 Hz would three be equal).
CLIPPED_RUN = 3
# Of full scale, -1 dB: quiet recordings have flat extremes too, since few steps make them up. Below
# full scale also, since what clipped is often turned down a little, or mixed to one channel, later.
CLIPPED_LEVEL = 0.89


class Header(NamedTuple):
    """rate: Hz; channels; frames: samples a channel, at least 1."""

    rate: int
    channels: int
    frames: int


class Output(io.BytesIO):
    """What a command printed; in messages it is named as wav.scp names it."""

    def __init__(self, content: bytes, command: str) -> None:
        super().__init__(content)
        self.command = command

    def __str__(self) -> str:
        return self.command


def is_pipe(place: str) -> bool:
    """Whether a place in wav.scp is, as Kaldi has it, a shell command that prints a recording."""
    return place.endswith("|")


def run(command: str) -> Output:
    """Run such a command in bash; what it prints is a recording for `header` and `read`.

    Raises UserError where the command, or a part of a pipeline, fails.
    """
    # pipefail: else a decoder that breaks off in a pipeline would leave a shorter recording
    shell = ["bash", "-o", "pipefail", "-c", command.removesuffix("|")]
    done = subprocess.run(shell, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        told = " ".join(done.stderr.decode(errors="replace").split())[-200:]
        raise UserError(f"{command}: exit status {done.returncode} ({told}); mend the command")
    return Output(done.stdout, command)


def recording(place: str, entry: str) -> str | Output:
    """The recording at a place in wav.scp, whose command runs if it is one.

    Raises UserError as `run` does, naming the `entry` (table and utterance).
    """
    try:
        return run(place) if is_pipe(place) else place
    except UserError as error:
        raise UserError(f"{entry}: {error}") from None


def header(recording: str | Path | Output) -> Header:
    """Read what a recording says of itself, without decoding it.

    Those formats are taken that are seen to be whole (ser/containers.py): WAV (RF64 and W64 too), FLAC, AIFF,
    AU, CAF, IFF (8SVX, 16SV), NIST SPHERE, Ogg and MP3, told by content, not by suffix. Raises UserError
    naming the file where it is missing, empty, of another format, or shorter than it says, and where its
    sampling rate, or its number of channels or samples, cannot be.
    """
    import soundfile

    try:
        if isinstance(recording, Output):
            size, promise = len(recording.getbuffer()), containers.promise(recording)
        else:
            with open(recording, "rb") as stream:
                size, promise = stream.seek(0, 2), containers.promise(stream)
    except OSError as error:
        raise UserError(f"{recording}: {error.strerror}; mend the path or its rights") from None
    except ValueError as error:
        raise UserError(f"{recording}: {error}") from None
    if size == 0:
        raise UserError(f"{recording}: empty file; fetch it again")
    if promise and promise.end > size:  # libsndfile would make it shorter and say nothing
        raise UserError(f"{recording}: cut short: {promise.end - size} bytes are missing; fetch it again")
    rate = promise and promise.rate
    if rate is None or rate in RATES:
        try:
            info = soundfile.info(_source(recording))
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless, named .raw
            raise _undecodable(recording, error) from None
        if not promise and info.format != "FLAC":
            raise UserError(
                f"{recording}: nobody can tell whether a file of this format, {info.format_info}, is whole; "
                "convert the original to WAV or FLAC"
            )
        rate = info.samplerate
    if rate not in RATES:
        raise UserError(f"{recording}: a sampling rate of {rate} Hz in its header; fetch it again")
    if info.channels > CHANNELS:
        raise UserError(f"{recording}: {info.channels} channels in its header; fetch it again")
    if info.frames == 0:
        raise UserError(f"{recording}: no samples in it; fetch it again")
    if info.frames * info.channels > SAMPLES_PER_BYTE * size:  # FLAC from a pipe has the most that there are
        raise UserError(
            f"{recording}: its header says {info.frames} samples in {size} bytes: it is damaged, or was written "
            "to a pipe; fetch it again, or convert it to WAV"
        )
    return Header(info.samplerate, info.channels, info.frames)


def read(recording: str | Path | Output, rate: int | None = None) -> tuple["np.ndarray", int]:
    """Read a recording as one channel.

    rate: sampling rate in Hz to resample to (soxr, high quality); None keeps the recording's own.
    Returns the samples, float32 (N,), full scale at +-1, channels mixed down to their mean, and
    their rate in Hz. Raises UserError as `header` does, and where the recording cannot be decoded
    to its end, holds infinities or NaN, is not on the scale of +-1 (passes LOUDEST), is silent (all samples
    are equal), or where the mean loses what the channels hold (KEPT_ENERGY).
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
    if loudest > LOUDEST:  # resampled, the largest would be infinite
        raise UserError(
            f"{recording}: samples up to {loudest:g}, where full scale is 1; divide them by their own full "
            "scale (32768 of 16 bits), or fetch it again"
        )
    mono = samples.mean(axis=1) if promised.channels > 1 else samples[:, 0]
    if promised.channels > 1:
        energies = samples.var(axis=0, dtype=np.float64)
        best = energies.argmax()
        kept = mono.var(dtype=np.float64)
        if kept < KEPT_ENERGY * energies[best]:
            raise UserError(
                f"{recording}: the mean of its {promised.channels} channels has {kept / energies[best]:.1%} of "
                f"the energy of channel {best + 1}: they cancel, or the others are dead; write that channel to "
                "a file of its own"
            )
    if mono.min() == mono.max():
        raise UserError(f"{recording}: silent: every sample is {mono[0]:g}; fetch it again or leave it out")
    if rate is None:
        return mono, own_rate
    from ser.extract import resample

    return resample(mono, own_rate, rate), rate


def md5(samples: "np.ndarray") -> str:
    """MD5 of samples as `read` gives them at the recording's own rate: what utt2md5 has of a recording."""
    return hashlib.md5(samples.tobytes(), usedforsecurity=False).hexdigest()


def is_clipped(samples: "np.ndarray") -> bool:
    """Whether samples (N,), full scale at +-1, are flat at their loudest, as an overloaded input leaves them."""
    for extreme in (samples.max(), samples.min()):
        if abs(extreme) >= CLIPPED_LEVEL:
            places = (samples == extreme).nonzero()[0]
            # the last of a run lies this far behind its first
            if (places[CLIPPED_RUN - 1 :] - places[: 1 - CLIPPED_RUN] == CLIPPED_RUN - 1).any():
                return True
    return False


def _source(recording: str | Path | Output) -> bytes | Output:
    """What soundfile is to open."""
    if isinstance(recording, Output):
        recording.seek(0)
        return recording
    return os.fsencode(recording)


def _undecodable(recording: str | Path | Output, error: Exception) -> UserError:
    reason = getattr(error, "error_string", str(error)).rstrip(".")
    return UserError(f"{recording}: not a recording that can be read ({reason}); fetch it again")
