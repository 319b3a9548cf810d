import functools
import http.server
import io
import itertools
import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser import audio, download, recognisers, transcribe, validate_data
from ser.cli import UserError
from ser.files import InUse, alone

RATE = 8000  # of the recordings; the recogniser's is 16000
UTTS = ("a-1", "a-2", "a-3", "b-1", "b-2")
LABELS = ("|", "A", "B", "C")
PARAMS = {
    "extractor_mode": "group_norm", "extractor_conv_layer_config": [(8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2],
    "extractor_conv_bias": False, "encoder_embed_dim": 8, "encoder_projection_dropout": 0.1, "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 2, "encoder_num_layers": 1, "encoder_num_heads": 2, "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 8, "encoder_ff_interm_dropout": 0.0, "encoder_dropout": 0.1, "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.05, "aux_num_out": 1 + len(LABELS),
}  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A bundle of torchaudio's form, TINY, whose network is tiny, and its file of weights tiny.pt."""
    import torch
    from torchaudio import pipelines

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, normalise in (("TINY", False), ("TINY_NORMALISED", True)):
        bundle = pipelines.Wav2Vec2ASRBundle(
            "tiny.pt", PARAMS, _labels=LABELS, _sample_rate=16000, _normalize_waveform=normalise, _model_type="Wav2Vec2"
        )
        monkeypatch.setattr(pipelines, name, bundle, raising=False)
    yield
    torch.set_num_threads(threads)


@functools.cache
def network(seed=1):
    """A network with random weights, whose outputs vary from frame to frame."""
    import torch
    import torchaudio

    torch.manual_seed(seed)
    network = torchaudio.models.wav2vec2_model(**PARAMS).eval()
    for name, weight in network.named_parameters():
        if "conv_layers" in name and weight.ndim == 3:
            torch.nn.init.normal_(weight)
    torch.nn.init.normal_(network.aux.weight)
    return network


def save_weights(path, seed=1, **changes):
    """Write them as torchaudio's are: under the older names, and with three outputs that nothing was trained for."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    state = dict(network(seed).state_dict())
    for number, letter in ((0, "g"), (1, "v")):
        conv = "encoder.transformer.pos_conv_embed.conv"
        state[f"{conv}.weight_{letter}"] = state.pop(f"{conv}.parametrizations.weight.original{number}")
    for name in ("aux.weight", "aux.bias"):
        rows = state[name]
        state[name] = torch.cat([rows[:1], torch.full_like(rows[:1], 1e9).repeat_interleave(3, 0), rows[1:]])
    torch.save(state | changes, path)
    return path


@pytest.fixture
def data(tmp_path):
    """A data directory of five recordings of 0.2 to 1 s."""
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    for number, utt in enumerate(UTTS, 1):
        noise = rng.standard_normal(number * RATE // 5) * np.linspace(0, 1, number * RATE // 5) ** 2
        soundfile.write(tmp_path / f"{utt}.wav", 0.05 * noise, RATE)
    (data / "wav.scp").write_text("".join(f"{utt} {tmp_path}/{utt}.wav\n" for utt in UTTS))
    (data / "text").write_text("".join(f"{utt} some words\n" for utt in UTTS))
    return data


@pytest.fixture
def weights(tmp_path):
    return save_weights(tmp_path / "mine" / "weights.pt")


def call(data, *options, model="TINY"):
    transcribe.main(["--device", "cpu", "--model", model, *map(str, options), str(data)])


def collapsed(path):
    """CTC's definition: of labels that follow each other and are the same one stays, then blanks go."""
    text = ""
    for place, label in enumerate(path):
        if label != 0 and (place == 0 or path[place - 1] != label):
            text += LABELS[label - 1]
    return " ".join(text.replace("|", " ").split())


def by_hand(data, utt, normalise=False):
    """What the network hears, frame by frame."""
    import soxr
    import torch

    samples, rate = soundfile.read(data.parent / f"{utt}.wav", dtype="float32")
    samples = soxr.resample(samples, rate, 16000, quality="HQ")
    if normalise:
        samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-5)
    with torch.no_grad():
        scores = network()(torch.tensor(samples)[None])[0][0].numpy()
    return collapsed([int(np.argmax(frame)) for frame in scores])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ([], ""),
        ([0, 0], ""),
        ([1, 0, 1, 1], ""),
        ([2, 2, 3], "AB"),
        ([2, 0, 2], "AA"),
        ([0, 2, 2, 0, 0, 2, 1, 1, 0, 4, 1], "AA C"),
        ([1, 2, 1, 0, 1, 3, 3], "A B"),
    ],
)
def test_the_words_of_a_path(path, words):
    assert recognisers.spell(path, ("", *LABELS)) == collapsed(path) == words


def test_the_words_of_all_short_paths():
    for path in itertools.product(range(4), repeat=5):
        assert recognisers.spell(path, ("", *LABELS)) == collapsed(path)


def test_each_recording_is_heard_as_alone(data, weights, capsys):
    call(data, "--weights", weights)
    lines = (data / "text_asr").read_text().splitlines()
    assert lines == [f"{utt} {by_hand(data, utt)}".strip() for utt in UTTS]
    assert len({line.partition(" ")[2] for line in lines}) == len(UTTS)  # the network is not deaf
    out, err = capsys.readouterr()
    assert re.fullmatch(
        r"word error rate \d+\.\d\d % \(\d+ errors in 10 words; 5 utterances, no words recognised in 0\)\n", out
    )
    assert err == ""
    assert sorted(path.name for path in data.iterdir()) == ["text", "text_asr", "wav.scp"]


def test_recordings_are_normalised_where_the_bundle_says_so(data, weights):
    call(data, "--weights", weights, model="TINY_NORMALISED")
    heard = (data / "text_asr").read_text().splitlines()
    assert heard == [f"{utt} {by_hand(data, utt, True)}".strip() for utt in UTTS]


def test_nothing_heard_is_an_id_alone(data, weights, capsys):
    import torch

    deaf = network().aux.bias.detach().repeat_interleave(torch.tensor([4, 1, 1, 1, 1]))
    deaf[0] = 1e6  # the blank
    save_weights(weights, **{"aux.bias": deaf})
    call(data, "--weights", weights)
    assert (data / "text_asr").read_text() == "".join(f"{utt}\n" for utt in UTTS)
    assert (
        capsys.readouterr().out
        == "word error rate 100.00 % (10 errors in 10 words; 5 utterances, no words recognised in 5)\n"
    )
    faults = []
    assert not [*validate_data.wrong_values("text_asr", validate_data.read(data / "text_asr", faults)), *faults]


def test_a_recording_shorter_than_the_network_needs(data, weights):
    soundfile.write(data.parent / "a-1.wav", [0.1, -0.1, 0.2], RATE)
    call(data, "--weights", weights)
    assert len((data / "text_asr").read_text().splitlines()) == len(UTTS)


def test_a_table_of_another_recogniser_is_left_alone(data, capsys):
    table = "a-1 some words\na-2 SOME\na-3 some more words\nb-1\nb-2 Sum, words!\n"
    (data / "text_asr").write_text(table)
    call(data, model="NO_SUCH")  # which is not asked for
    assert capsys.readouterr().out == (
        f"{data}/text_asr: exists already; remove it to transcribe the recordings again\n"
        "word error rate 50.00 % (5 errors in 10 words; 5 utterances, no words recognised in 1)\n"
    )
    assert (data / "text_asr").read_text() == table
    (data / "text_asr").write_text(table.replace("b-1\n", ""))
    with pytest.raises(UserError, match="data/text_asr: no line for b-1; add it"):
        call(data)


def test_no_true_words_no_word_error_rate(data, weights, capsys):
    (data / "text").write_text("".join(f"{utt} [LAUGHTER]\n" for utt in UTTS))
    call(data, "--weights", weights)
    assert capsys.readouterr().out == "no word error rate: no reference transcript of the 5 utterances has words\n"


@pytest.mark.parametrize(
    ("true", "other", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("a b c", "a c", 1),
        ("a b c", "a x c", 1),
        ("a b c", "a b b c", 1),
        ("a b", "b a", 2),
        ("s u n d a y", "s a t u r d a y", 3),
        ("the cat", "thecat", 2),
        ("The cat.", "the cat", 0),
    ],
)
def test_word_errors_are_counted_in_words(true, other, errors):
    said = transcribe.word_error_rate({"u1": true, "u2": "one more"}, {"u1": other, "u2": "one more"})
    assert f"({errors} errors in {len(true.split()) + 2} words; " in said


class Stopped(BaseException):
    """As by a signal."""


@pytest.fixture
def heard(monkeypatch):
    """The recordings that are read; from the one whose name is in `stops` on there is a kill."""
    heard, read = [], audio.read

    def noting(recording, rate):
        if Path(recording).stem in heard.stops:
            raise Stopped
        heard.append(Path(recording).stem)
        return read(recording, rate)

    class Heard(list):
        stops = ()

    heard = Heard()
    monkeypatch.setattr(audio, "read", noting)
    return heard


def stopped(data, weights, heard, utt="b-1"):
    heard.stops = (utt,)
    with pytest.raises(Stopped):
        call(data, "--weights", weights)
    assert not (data / "text_asr").exists()
    heard.stops = ()
    heard.clear()
    return data / "text_asr.part"


def table_of(data):
    return "".join(f"{utt} {by_hand(data, utt)}".strip() + "\n" for utt in UTTS)


def test_an_interrupted_call_goes_on(data, weights, heard):
    stopped(data, weights, heard, "a-2")
    part = stopped(data, weights, heard, "b-1")
    with open(part, "ab") as stream:
        stream.write("b-1 É".encode()[:-1])  # a kill in the midst of a line
    call(data, "--weights", weights)
    assert heard == ["b-1", "b-2"]
    assert (data / "text_asr").read_text() == table_of(data)
    assert not part.exists()


@pytest.mark.parametrize("damage", [b"\xff", b"\0\0\0", b"\x1b[2J", b"A \r B", b"A  B"])
def test_a_damaged_line_is_heard_anew(data, weights, heard, damage):
    """As a machine leaves it that lost its power."""
    part = stopped(data, weights, heard)
    head, first, second, third = part.read_bytes().splitlines()
    part.write_bytes(b"\n".join([head, first, second.split(b" ")[0] + b" " + damage, third, b""]))
    call(data, "--weights", weights)
    assert heard == [second.split(b" ")[0].decode(), *UTTS[3:]]
    assert (data / "text_asr").read_text() == table_of(data)


def test_a_call_that_was_interrupted_before_its_first_line(data, weights, heard):
    part = stopped(data, weights, heard, "a-1")
    part.write_bytes(part.read_bytes()[:5])
    call(data, "--weights", weights)
    assert heard == list(UTTS)


@pytest.mark.parametrize("other", ["model", "weights", "recordings"])
def test_what_was_heard_otherwise_is_heard_anew(data, weights, heard, other):
    stopped(data, weights, heard)
    if other == "recordings":
        soundfile.write(data.parent / "a-1.wav", 0.1 * np.random.default_rng(9).standard_normal(RATE), RATE)
    model = "TINY_NORMALISED" if other == "model" else "TINY"
    call(data, "--weights", save_weights(data / "2.pt", seed=2) if other == "weights" else weights, model=model)
    assert len(heard) == len(UTTS)


def test_what_was_heard_of_the_same_files_elsewhere_stays(data, weights, heard):
    """Weights and recordings are named by what they hold."""
    stopped(data, weights, heard)
    (data.parent / "a-1.wav").rename(data.parent / "new.wav")
    (data / "wav.scp").write_text((data / "wav.scp").read_text().replace("a-1.wav", "new.wav"))
    call(data, "--weights", weights.rename(data / "moved.pt"))
    assert heard == ["b-1", "b-2"]


def test_two_calls_at_once(data, weights):
    with alone(data / ".text_asr.lock", "it"), pytest.raises(InUse, match="data/text_asr is in use by process"):
        call(data, "--weights", weights)


def test_a_log_gets_plain_lines(data, weights, monkeypatch, capsys):
    monkeypatch.setattr(transcribe, "LOG_EVERY", 0.0)
    call(data, "--weights", weights)
    assert capsys.readouterr().err == "".join(f"{data}/text_asr: {number} of 5 utterances\n" for number in range(1, 6))


def test_a_terminal_gets_a_bar(data, weights, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(transcribe, "LOG_EVERY", 0.0)
    monkeypatch.setattr(sys, "stderr", terminal)
    call(data, "--weights", weights)
    assert "\rtranscribing: 100%" in terminal.getvalue()
    assert "utterances" not in terminal.getvalue()


def test_commands_in_wav_scp_need_leave(data, weights):
    before = (data / "wav.scp").read_text()
    (data / "wav.scp").write_text(before.replace(f"a-1 {data.parent}/a-1.wav", f"a-1 cat {data.parent}/a-1.wav |"))
    with pytest.raises(
        UserError,
        match=r"wav.scp:1: a-1 is a shell command, .*; replace it by a file.* with ser.transcribe --allow-pipes",
    ):
        call(data, "--weights", weights)
    call(data, "--weights", weights, "--allow-pipes")
    assert (data / "text_asr").read_text() == table_of(data)
    (data / "text_asr").unlink()
    (data / "wav.scp").write_text(before.replace(f"a-1 {data.parent}/a-1.wav", "a-1 false |"))
    with pytest.raises(UserError, match=r"data/wav.scp: a-1: false \|: exit status 1"):
        call(data, "--weights", weights, "--allow-pipes")


def test_a_recording_that_cannot_be_heard(data, weights, heard):
    soundfile.write(data.parent / "b-1.wav", np.zeros(RATE), RATE)
    with pytest.raises(UserError, match=r"b-1.wav: silent: .*; fetch it again or leave it out"):
        call(data, "--weights", weights)
    assert heard[-1] == "b-1"  # the others are kept
    assert len((data / "text_asr.part").read_text().splitlines()) == 4


@pytest.mark.parametrize("table", ["wav.scp", "text"])
def test_a_table_that_is_missing_is_told_at_once(data, table, heard):
    (data / table).unlink()
    with pytest.raises(UserError, match=f"{table}: no such table"):
        call(data)
    assert heard == []


@pytest.fixture
def server(tmp_path, monkeypatch):
    """torchaudio's server, on this machine, and its cache in tmp_path/cache; the requests that it gets."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "published"))

        def log_message(self, *arguments):
            asked.append(self.requestline)

    save_weights(tmp_path / "published/tiny.pt")
    monkeypatch.setattr(download, "WAIT", 0.0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(recognisers, "URL", f"http://127.0.0.1:{server.server_port}/")
        yield asked
        server.shutdown()
        thread.join()


def test_weights_are_fetched_once(data, server, tmp_path):
    for _ in range(2):
        call(data)
        assert (data / "text_asr").read_text() == table_of(data)
        (data / "text_asr").unlink()
    assert server == ["HEAD /tiny.pt HTTP/1.1", "GET /tiny.pt HTTP/1.1"]
    assert [path.name for path in (tmp_path / "cache/hub/checkpoints").iterdir()] == ["tiny.pt"]


def test_no_network(data, server, monkeypatch, tmp_path):
    monkeypatch.setattr(recognisers, "URL", "http://127.0.0.1:1/")
    place = tmp_path / "cache/hub/checkpoints/tiny.pt"
    remedy = f"run the same command again .* download the file by hand to {place}, or give it by --weights FILE"
    with pytest.raises(UserError, match=f"http://127.0.0.1:1/tiny.pt: interrupted .*no connection: .*; {remedy}"):
        call(data)
    assert not (data / "text_asr").exists()


class Evil:
    """What would make a file if it were unpickled."""

    def __reduce__(self):
        return open, ("ran", "w")


@pytest.mark.parametrize(
    "fault", ["another network", "a part more", "no weights", "a web page", "cut short", "empty", "runs"]
)
def test_wrong_weights(data, weights, fault, monkeypatch, tmp_path):
    import torch

    monkeypatch.chdir(tmp_path)
    if fault == "another network":
        save_weights(weights, **{"encoder.feature_projection.projection.bias": torch.zeros(9)})
    elif fault == "a part more":
        save_weights(weights, more=torch.zeros(1))
    elif fault == "no weights":
        torch.save([1, 2], weights)
    elif fault == "runs":
        save_weights(weights, evil=Evil())
    else:
        weights.write_bytes(
            {"a web page": b"<html>not found</html>", "cut short": weights.read_bytes()[:-1000], "empty": b""}[fault]
        )
    with pytest.raises(UserError) as error:
        call(data, "--weights", weights)
    assert re.fullmatch(
        rf"{weights}: not the weights of TINY \(.+\); download {recognisers.URL}tiny.pt", str(error.value)
    )
    assert not Path("ran").exists()
    assert not (data / "text_asr").exists()


def test_wrong_weights_in_the_cache(data, server, tmp_path):
    (tmp_path / "published/tiny.pt").write_bytes(b"other weights")
    with pytest.raises(
        UserError,
        match=r"checkpoints/tiny.pt: not the weights of TINY .*; remove the file and run the same command again",
    ):
        call(data)


def test_weights_that_are_not_there(data, tmp_path):
    for path in (tmp_path / "no.pt", tmp_path):
        with pytest.raises(
            UserError,
            match=f"{path}: no such file; download https://download.pytorch.org/torchaudio/models/tiny.pt",
        ):
            call(data, "--weights", path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WAV2VEC2_ASR_BASE_960", "did you mean WAV2VEC2_ASR_BASE_960H?"),
        ("wav2vec2_asr_base_960h", "did you mean WAV2VEC2_ASR_BASE_960H?"),
        ("WAV2VEC2_BASE", "did you mean WAV2VEC2_ASR_BASE"),  # it has no letters
        ("?", "available: HUBERT_ASR_LARGE, HUBERT_ASR_XLARGE, TINY"),
    ],
)
def test_an_unknown_model(data, name, message):
    with pytest.raises(UserError) as error:
        call(data, model=name)
    assert f"--model {name}: torchaudio has no such recogniser; {message}" in str(error.value)


def test_a_gpu_that_is_not_there(data, weights):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="--device cuda: torch sees no GPU here"):
        transcribe.main(["--device", "cuda", "--model", "TINY", "--weights", str(weights), str(data)])


def test_the_default_is_a_recogniser_of_torchaudios(data, monkeypatch, tmp_path):
    asked = []

    def fetch(url, path, size, md5):
        asked.append((url, path, size, md5))
        raise UserError("no network")

    monkeypatch.setattr(download, "fetch", fetch)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="no network, or give it by --weights FILE"):
        transcribe.main([str(data)])
    name = "wav2vec2_fairseq_base_ls960_asr_ls960.pth"
    assert asked == [
        (f"https://download.pytorch.org/torchaudio/models/{name}", tmp_path / "hub/checkpoints" / name, None, None)
    ]
