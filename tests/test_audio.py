import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from ser import audio
from ser.cli import UserError

RATE = 16000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)  # a second


def written(path, samples=TONE, rate=RATE, **options):
    soundfile.write(path, samples, rate, **options)
    return path


def test_one_channel_is_read_as_it_is(tmp_path):
    samples, rate = audio.read(written(tmp_path / "a.wav", subtype="FLOAT"))
    assert rate == RATE
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, TONE)


def test_channels_are_mixed_down_to_their_mean(tmp_path):
    stereo = np.stack([TONE, 0.5 * TONE], axis=1)
    path = written(tmp_path / "a.wav", stereo, subtype="FLOAT")
    samples, _ = audio.read(path)
    np.testing.assert_allclose(samples, 0.75 * TONE, atol=1e-7)
    assert audio.header(path) == (RATE, 2, len(TONE))


def test_equal_channels_give_the_bits_of_one(tmp_path):
    mono, _ = audio.read(written(tmp_path / "mono.wav"))
    stereo, _ = audio.read(written(tmp_path / "stereo.wav", np.stack([TONE, TONE], axis=1)))
    np.testing.assert_array_equal(mono, stereo)


def test_resampling_keeps_the_tone_and_the_duration(tmp_path):
    samples, rate = audio.read(written(tmp_path / "a.wav"), rate=8000)
    assert (rate, samples.dtype, samples.shape) == (8000, np.float32, (8000,))
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    np.testing.assert_allclose(samples[500:-500], wanted[500:-500], atol=1e-3)


def test_resampling_lets_nothing_fold_back(tmp_path):
    whistle = (0.5 * np.sin(2 * np.pi * 5000 * np.arange(RATE) / RATE)).astype(np.float32)
    samples, _ = audio.read(written(tmp_path / "a.wav", whistle), rate=8000)
    assert np.abs(samples[500:-500]).max() < 1e-3


def test_the_format_is_told_by_content(tmp_path):
    for name, kind in [("aiff.wav", "AIFF"), ("flac.wav", "FLAC"), ("wave.flac", "WAV")]:
        samples, _ = audio.read(written(tmp_path / name, format=kind, subtype="PCM_16"))
        np.testing.assert_allclose(samples, TONE, atol=1e-4)


def chunk(name, content, length=None):
    return name + struct.pack("<I", len(content) if length is None else length) + content


def wave(path, *chunks):
    form = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16))
    body = b"WAVE" + form + b"".join(chunks)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


PCM = (TONE * 32767).astype("<i2").tobytes()


def test_chunks_around_the_samples_are_passed_over(tmp_path):
    odd = chunk(b"LIST", b"INFO\0") + b"\0"  # five bytes and one to make the next start even
    path = wave(tmp_path / "a.wav", chunk(b"FLLR", bytes(4044)), odd, chunk(b"data", PCM), chunk(b"_PMX", b"<x/>"))
    assert len(audio.read(path)[0]) == RATE


def test_a_wave_written_to_a_pipe_has_no_length_and_is_read(tmp_path):
    path = wave(tmp_path / "a.wav", chunk(b"data", PCM, length=0xFFFFFFFF))
    assert len(audio.read(path)[0]) == RATE


@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
def test_a_recording_cut_short_is_refused(tmp_path, kind):
    path = written(tmp_path / "a.wav", format=kind, subtype="PCM_16")
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(UserError, match=r"a.wav: cut short: 100 bytes are missing"):
        audio.header(path)
    with pytest.raises(UserError, match=r"a.wav: cut short"):
        audio.read(path)


def test_a_recording_cut_short_behind_odd_chunks_is_refused(tmp_path):
    path = wave(tmp_path / "a.wav", chunk(b"LIST", b"INFO\0") + b"\0", chunk(b"data", PCM))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="a.wav: cut short: 1 bytes are missing"):
        audio.header(path)


def test_a_flac_cut_short_is_refused(tmp_path):
    path = written(tmp_path / "a.flac")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="a.flac: "):
        audio.read(path)


@pytest.mark.parametrize("more", [1, 1000])
def test_fewer_samples_than_the_header_says_are_refused(tmp_path, more):
    """MP3, where the encoder counts its frames."""
    path = written(tmp_path / "a.mp3")
    content = bytearray(path.read_bytes())
    place = content.index(b"Xing") + 8
    content[place : place + 4] = struct.pack(">I", struct.unpack(">I", content[place : place + 4])[0] + more)
    path.write_bytes(content)
    with pytest.raises(UserError, match="a.mp3: cut short: [0-9]+ samples are missing; fetch it again"):
        audio.read(path)


def claiming(path, frames):
    """A FLAC file whose header says so many samples."""
    content = bytearray(written(path, format="FLAC").read_bytes())
    assert content[21:26] == struct.pack(">BI", content[21], RATE)  # 4 bits of it are the number's highest
    content[21:26] = struct.pack(">BI", content[21] | frames >> 32, frames & 0xFFFFFFFF)
    path.write_bytes(content)
    return path


def test_a_header_that_claims_what_no_file_holds_is_refused(tmp_path):
    assert len(audio.read(claiming(tmp_path / "a.wav", RATE))[0]) == RATE
    size = (tmp_path / "a.wav").stat().st_size
    for frames in (34_359_743_168, 10_001 * size):
        with pytest.raises(
            UserError, match=f"a.wav: its header says {frames} samples in {size} bytes: .*; fetch it again"
        ):
            audio.header(claiming(tmp_path / "a.wav", frames))
    with pytest.raises(UserError, match="a.wav: its header says [0-9]+ samples in"):  # as encoders write to a pipe
        audio.header(claiming(tmp_path / "a.wav", 0))


def test_what_a_header_claims_takes_no_memory(tmp_path):
    path = claiming(tmp_path / "a.wav", 80_000_000)  # 320 MB
    audio.header(path)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="a.wav: "):
            audio.read(path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_hundreds_of_channels_are_refused(tmp_path):
    path = written(tmp_path / "a.wav", TONE.reshape(-1, 100))
    with pytest.raises(UserError, match="a.wav: 100 channels in its header; fetch it again"):
        audio.header(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path, value):
    samples = TONE.copy()
    samples[17] = value
    with pytest.raises(UserError, match="a.wav: infinite or undefined"):
        audio.read(written(tmp_path / "a.wav", samples, subtype="FLOAT"))


@pytest.mark.parametrize("rate", [None, 8000])
@pytest.mark.parametrize(("peak", "said"), [(1e38, "1e\\+38"), (16384, "16384"), (-300, "300"), (10.5, "10.5")])
def test_samples_on_another_scale_are_refused(tmp_path, peak, said, rate):
    path = written(tmp_path / "a.wav", TONE * (2 * peak), subtype="FLOAT")
    with pytest.raises(
        UserError, match=f"a.wav: samples up to {said}, where full scale is 1; divide them by their full"
    ):
        audio.read(path, rate)


def test_float_samples_may_pass_full_scale(tmp_path):
    path = written(tmp_path / "a.wav", 3 * TONE, subtype="FLOAT")
    np.testing.assert_array_equal(audio.read(path)[0], 3 * TONE)
    assert np.isfinite(audio.read(written(path, TONE * np.float32(20), subtype="DOUBLE"), 44100)[0]).all()


NOISE = np.random.default_rng(1).standard_normal((RATE, 6)).astype(np.float32) / 10


@pytest.mark.parametrize(
    ("channels", "share", "best"),
    [
        ([TONE, -TONE], "0.0%", 1),
        ([-0.8 * TONE, TONE], "1.0%", 2),
        ([0 * TONE, 0 * TONE, TONE, 0 * TONE, 0 * TONE, 0 * TONE], "2.8%", 3),
        ([0.25 + 0.0011 * TONE, 0.25 - 0.001 * TONE], "0.2%", 1),  # an offset is no sound
    ],
)
def test_channels_whose_mean_loses_the_sound_are_refused(tmp_path, channels, share, best):
    path = written(tmp_path / "a.wav", np.stack(channels, axis=1), subtype="FLOAT")
    message = (
        f"{path}: the mean of its {len(channels)} channels has {share} of the energy of channel {best}: they cancel, or "
        "the others are dead; extract that channel to a file of its own"
    )
    with pytest.raises(UserError) as error:
        audio.read(path)
    assert str(error.value) == message
    audio.header(path)


@pytest.mark.parametrize(
    "channels",
    [
        [TONE, 0 * TONE],  # one microphone of two
        [TONE, np.roll(TONE, 8)],  # 90 degrees apart
        [TONE, -0.2 * TONE],
        list(NOISE.T),  # each its own
    ],
)
def test_channels_whose_mean_keeps_the_sound_are_mixed(tmp_path, channels):
    path = written(tmp_path / "a.wav", np.stack(channels, axis=1), subtype="FLOAT")
    np.testing.assert_allclose(audio.read(path)[0], np.mean(channels, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"RIFF", "cannot be read as a recording"),
        (b"RIFF\x04\0\0\0WAVE", "cannot be read as a recording"),
        (b"<html>not found</html>" * 10, "cannot be read as a recording"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path, content, message):
    for name in ("a.wav", "a.raw"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: {message}"):
            audio.read(tmp_path / name)


def test_a_recording_without_samples_is_refused(tmp_path):
    with pytest.raises(UserError, match="a.wav: no samples"):
        audio.read(written(tmp_path / "a.wav", TONE[:0]))


def test_a_path_that_leads_nowhere_is_named(tmp_path):
    with pytest.raises(UserError, match="a.wav: No such file"):
        audio.read(tmp_path / "a.wav")
    with pytest.raises(UserError, match="Is a directory"):
        audio.read(tmp_path)


def test_a_name_that_is_not_utf8_can_be_read(tmp_path):
    path = tmp_path / "caf\udce9.wav"  # as Python shows a Latin-1 name
    path.write_bytes(written(tmp_path / "a.wav").read_bytes())
    assert len(audio.read(path)[0]) == RATE


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("value", [0, 0.25])
def test_silence_is_refused(tmp_path, value, channels):
    path = written(tmp_path / "a.wav", np.full((RATE, channels), value, np.float32))
    with pytest.raises(UserError, match=f"a.wav: silent: every sample is {value}; fetch it again or leave it out"):
        audio.read(path)
    audio.header(path)
    samples = np.full(RATE, value, np.float32)
    samples[17] += 2**-15  # one step of 16 bits
    audio.read(written(path, samples))


@pytest.mark.parametrize("rate", [0, 1, 999, 1_000_000, 2**31, 2**32 - 1])
def test_a_sampling_rate_that_cannot_be_is_refused(tmp_path, rate):
    path = written(tmp_path / "a.wav")
    content = bytearray(path.read_bytes())
    assert struct.unpack("<I", content[24:28]) == (RATE,)
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"a.wav: a sampling rate of {rate} Hz in its header; fetch it again"):
        audio.header(path)


def test_an_aiff_with_a_sampling_rate_of_0_is_refused(tmp_path):
    path = written(tmp_path / "a.aiff")
    content = bytearray(path.read_bytes())
    rate = content.index(b"COMM") + 16
    content[rate : rate + 10] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(UserError, match="a.aiff: a sampling rate of . Hz in its header"):
        audio.header(path)


def voice(level):
    """A voiced sound and noise, of that peak."""
    time = np.arange(RATE) / RATE
    sound = sum(np.sin(2 * np.pi * 110 * k * time + k) / k for k in range(1, 20)) + 0.01 * np.random.default_rng(
        0
    ).standard_normal(RATE)
    return (level * sound / np.abs(sound).max()).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "is_clipped"),
    [
        (voice(0.999), False),  # loud, and whole
        (voice(1.1), True),  # as the file's 16 bits cut it
        (
            np.clip(0.95 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE), -1, 0.9),
            True,
        ),  # on one side alone, and turned down
        (np.clip(voice(0.5), -0.4, 0.4), False),  # quiet: nothing that an input does
        (np.where(np.arange(RATE) == 9, 0.999, voice(0.3)), False),  # a click
        (np.sin(2 * np.pi * 100 * np.arange(48000) / 48000), False),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_clipped(tmp_path, samples, is_clipped, sign):
    assert audio.is_clipped(audio.read(written(tmp_path / "a.wav", sign * samples, subtype="PCM_16"))[0]) == is_clipped


@pytest.mark.parametrize(("run", "is_clipped"), [(1, False), (2, False), (3, True), (4, True)])
@pytest.mark.parametrize("start", [0, 500, RATE - 4])
def test_a_clipped_stretch_has_three_samples(run, is_clipped, start):
    samples = TONE.copy()
    samples[start : start + run] = 1
    samples[[2000, 2002, 2004, 2006]] = 1  # no neighbours
    assert audio.is_clipped(samples) == is_clipped


def test_what_a_command_prints_is_read(tmp_path):
    for name in ("a.wav", "a.flac"):
        path = written(tmp_path / name, subtype="PCM_16")
        samples, rate = audio.read(audio.run(f"cat '{path}' |"))
        assert rate == RATE
        np.testing.assert_array_equal(samples, audio.read(path)[0])
        assert audio.header(audio.run(f"cat '{path}' |")) == (RATE, 1, RATE)
    assert len(audio.read(audio.run(f"cat {path} |"), 8000)[0]) == 8000


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "echo one >&2; echo two >&2; exit 3 |",
            "echo one >&2; echo two >&2; exit 3 |: exit status 3 (one two); fix the command",
        ),
        ("(cat a.wav; exit 5) | cat |", "(cat a.wav; exit 5) | cat |: exit status 5 (); fix the command"),
        ("true |", "true |: empty file; fetch it again"),
        ("head -c 1000 a.wav |", "head -c 1000 a.wav |: cut short: 31044 bytes are missing; fetch it again"),
        ("head -c 1000 a.flac |", "head -c 1000 a.flac |: "),
        ("echo words |", "echo words |: cannot be read as a recording (Format not recognised); fetch it again"),
    ],
)
def test_a_command_that_does_not_print_a_recording(tmp_path, monkeypatch, command, message):
    monkeypatch.chdir(tmp_path)
    written("a.wav")
    written("a.flac", voice(0.5))
    with pytest.raises(UserError) as error:
        audio.read(audio.run(command))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
