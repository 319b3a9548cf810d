"""Recordings, files on disk or what a command prints, -> samples."""

import hashlib
import io
import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from ser.cli import UserError

if TYPE_CHECKING:
    import numpy as np

# Programs that write to a pipe cannot know the length, and put one from here up into the header.
LENGTH_UNKNOWN = 0x7FFF0000
# Hz. From 1000 telephone speech is far, and 1 is what damaged headers come to: resampled, a second of
# such a recording would fill the memory.
RATES = range(1000, 1_000_000)
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

    WAV, AIFF, FLAC and whatever else libsndfile knows, told by content, not by suffix. Raises
    UserError naming the file where it is missing, empty, no such format, or shorter than it says,
    and where its sampling rate cannot be.
    """
    import soundfile

    if isinstance(recording, Output):
        size, (data_end, rate) = len(recording.getbuffer()), _promise(recording)
    else:
        try:
            with open(recording, "rb") as stream:
                size = stream.seek(0, 2)
                data_end, rate = _promise(stream)
        except OSError as error:
            raise UserError(f"{recording}: {error.strerror}; mend the path or its rights") from None
    if size == 0:
        raise UserError(f"{recording}: empty file; fetch it again")
    if data_end > size:  # libsndfile would make it shorter and say nothing
        raise UserError(f"{recording}: cut short: {data_end - size} bytes are missing; fetch it again")
    if rate is None or rate in RATES:
        try:
            info = soundfile.info(_source(recording))
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless, named .raw
            raise _undecodable(recording, error) from None
        rate = info.samplerate
    if rate not in RATES:
        raise UserError(f"{recording}: a sampling rate of {rate} Hz in its header; fetch it again")
    if info.frames == 0:
        raise UserError(f"{recording}: no samples in it; fetch it again")
    return Header(info.samplerate, info.channels, info.frames)


def read(recording: str | Path | Output, rate: int | None = None) -> tuple["np.ndarray", int]:
    """Read a recording as one channel.

    rate: sampling rate in Hz to resample to (soxr, high quality); None keeps the recording's own.
    Returns the samples, float32 (N,), full scale at +-1, channels mixed down to their mean, and
    their rate in Hz. Raises UserError as `header` does, and where the recording cannot be decoded
    to its end, holds infinities or NaN, or is silent: all samples are equal.
    """
    import numpy as np
    import soundfile

    promised = header(recording)
    try:
        samples, own_rate = soundfile.read(_source(recording), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise _undecodable(recording, error) from None
    if len(samples) < promised.frames:
        lost = promised.frames - len(samples)
        raise UserError(f"{recording}: cut short: {lost} samples are missing; fetch it again")
    mono = samples.mean(axis=1) if promised.channels > 1 else samples[:, 0]
    if not np.isfinite(mono).all():
        raise UserError(f"{recording}: infinite or undefined samples; fetch it again")
    if mono.min() == mono.max():
        raise UserError(f"{recording}: silent: every sample is {mono[0]:g}; fetch it again or leave it out")
    return (mono, own_rate) if rate is None else (resample(mono, own_rate, rate), rate)


def resample(samples: "np.ndarray", rate: int, to: int) -> "np.ndarray":
    """Samples (N,) at `rate` Hz -> at `to` Hz (soxr, high quality)."""
    if rate == to:
        return samples
    import soxr

    return soxr.resample(samples, rate, to, quality="HQ")


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


def _promise(stream: BinaryIO) -> tuple[int, int | None]:
    """The byte at which the samples of a WAV or AIFF file should end, 0 where that is unknown, and the
    sampling rate of a WAV file, None where that is: libsndfile has no words for a rate of 0."""
    stream.seek(0)
    rate = None
    form, _, kind = struct.unpack("4s4s4s", stream.read(12).ljust(12))
    if (form, kind) == (b"RIFF", b"WAVE"):
        order, samples_chunk = "<", b"data"
    elif form == b"FORM" and kind in (b"AIFF", b"AIFC"):
        order, samples_chunk = ">", b"SSND"
    else:
        return 0, None
    while len(chunk := stream.read(8)) == 8:
        name, length = struct.unpack(f"{order}4sI", chunk)
        start = stream.tell()
        if name == samples_chunk:
            return 0 if length >= LENGTH_UNKNOWN else start + length, rate
        if name == b"fmt " and len(sizes := stream.read(8)) == 8:
            rate = struct.unpack("<4xI", sizes)[0]
        stream.seek(start + length + length % 2)  # chunks start at even bytes
    return 0, rate
