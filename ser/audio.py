"""Recordings on disk -> samples."""

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ser.cli import UserError

if TYPE_CHECKING:
    import numpy as np

# Programs that write to a pipe cannot know the length, and put one from here up into the header.
LENGTH_UNKNOWN = 0x7FFF0000


class Header(NamedTuple):
    """rate: Hz; channels; frames: samples a channel, at least 1."""

    rate: int
    channels: int
    frames: int


def header(path: str | Path) -> Header:
    """Read what a recording says of itself, without decoding it.

    WAV, AIFF, FLAC and whatever else libsndfile knows, told by content, not by suffix. Raises
    UserError naming the file where it is missing, empty, no such format, or shorter than it says.
    """
    import soundfile

    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            data_end = _end_of_data(stream)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; mend the path or its rights") from None
    if size == 0:
        raise UserError(f"{path}: empty file; fetch it again")
    if data_end > size:  # libsndfile would make it shorter and say nothing
        raise UserError(f"{path}: cut short: {data_end - size} bytes are missing; fetch it again")
    try:
        info = soundfile.info(os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless, named .raw
        raise _undecodable(path, error) from None
    if info.frames == 0:
        raise UserError(f"{path}: no samples in it; fetch it again")
    return Header(info.samplerate, info.channels, info.frames)


def read(path: str | Path, rate: int | None = None) -> tuple["np.ndarray", int]:
    """Read a recording as one channel.

    rate: sampling rate in Hz to resample to (soxr, high quality); None keeps the recording's own.
    Returns the samples, float32 (N,), full scale at +-1, channels mixed down to their mean, and
    their rate in Hz. Raises UserError as `header` does, and where the recording cannot be decoded
    to its end or holds infinities or NaN.
    """
    import numpy as np
    import soundfile

    promised = header(path)
    try:
        samples, own_rate = soundfile.read(os.fsencode(path), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise _undecodable(path, error) from None
    if len(samples) < promised.frames:
        lost = promised.frames - len(samples)
        raise UserError(f"{path}: cut short: {lost} samples are missing; fetch it again")
    mono = samples.mean(axis=1) if promised.channels > 1 else samples[:, 0]
    if not np.isfinite(mono).all():
        raise UserError(f"{path}: infinite or undefined samples; fetch it again")
    if rate is not None and rate != own_rate:
        import soxr

        mono = soxr.resample(mono, own_rate, rate, quality="HQ")
    return mono, rate or own_rate


def _undecodable(path: str | Path, error: Exception) -> UserError:
    reason = getattr(error, "error_string", str(error)).rstrip(".")
    return UserError(f"{path}: not a recording that can be read ({reason}); fetch it again")


def _end_of_data(stream) -> int:
    """Return the byte at which the samples of a WAV or AIFF file should end; 0 where it is unknown."""
    form, _, kind = struct.unpack("4s4s4s", stream.read(12).ljust(12))
    if (form, kind) == (b"RIFF", b"WAVE"):
        order, samples_chunk = "<", b"data"
    elif form == b"FORM" and kind in (b"AIFF", b"AIFC"):
        order, samples_chunk = ">", b"SSND"
    else:
        return 0
    while len(chunk := stream.read(8)) == 8:
        name, length = struct.unpack(f"{order}4sI", chunk)
        if name == samples_chunk:
            return 0 if length >= LENGTH_UNKNOWN else stream.tell() + length
        stream.seek(length + length % 2, 1)  # chunks start at even bytes
    return 0
