"""Stage 2: features in parallel jobs, gone on with after a fault."""

import hashlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
import yaml

import ser
from ser import dump_features, noise, runs
from ser.cli import UserError
from ser.config import feature_name, read_system
from ser.features import logmel
from ser.files import alone

ROOT = Path(ser.__file__).parents[1]
RUN = f"{sys.executable} {Path(__file__).parents[1]}/tools/run.py"
RATE = 8000
FEATURE = "{kind: logmel, sample_rate: 8000, n_fft: 256, win_length: 200, hop_length: 80, n_mels: 8, fmin: 0, fmax: 4000, window: hann}"
LENGTHS = {f"a-{number}": 900 + 700 * number for number in range(5)}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a data directory of five recordings and a system."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    data = Path("data")
    data.mkdir()
    for utt, length in LENGTHS.items():
        soundfile.write(f"{utt}.wav", 0.1 * rng.standard_normal(length), RATE)
    (data / "wav.scp").write_text("".join(f"{utt} {tmp_path}/{utt}.wav\n" for utt in LENGTHS))
    (data / "utt2spk").write_text("".join(f"{utt} a\n" for utt in LENGTHS))
    (data / "utt2dur").write_text("".join(f"{utt} {length / RATE}\n" for utt, length in LENGTHS.items()))
    note_md5s()
    Path("conf").mkdir()
    write_system("a", FEATURE)
    return tmp_path


def note_md5s():
    """As stage 0 does."""
    samples = {utt: soundfile.read(f"{utt}.wav", dtype="float32")[0] for utt in LENGTHS}
    Path("data/utt2md5").write_text(
        "".join(f"{utt} {hashlib.md5(values.tobytes()).hexdigest()}\n" for utt, values in samples.items())
    )


def write_system(name, feature):
    model = "{kind: svm, functionals: [mean], cost: [1], gamma: [1], inner_folds: 2}"
    Path(f"conf/{name}.yaml").write_text(f"description: d\nnormalisation: none\nfeature: {feature}\nmodel: {model}\n")


def folder_of(name="a"):
    return Path("dump", feature_name(read_system(f"conf/{name}.yaml").feature))


def dump(nj=1, systems=("conf/a.yaml",), cmd=RUN):
    dump_features.main(["--systems", *systems, "--nj", str(nj), "--cmd", cmd, "data", "dump"])


def is_right(folder):
    """Whether the matrices are those that logmel gives for each recording, and utt2num_frames tells their sizes."""
    settings = {key: value for key, value in yaml.safe_load(FEATURE).items() if key != "kind"}
    config = logmel.Config(**settings | {"fmin": 0.0, "fmax": 4000.0})
    matrices = dict(kaldiio.load_scp(str(folder / "feats.scp")))
    expected = {
        utt: logmel.extract(soundfile.read(f"{utt}.wav", dtype="float32")[0], config) for utt in sorted(LENGTHS)
    }
    return (
        list(matrices) == list(expected)
        and all(np.array_equal(matrices[utt], expected[utt]) for utt in expected)
        and frames_of(folder) == {utt: 1 + length // 80 for utt, length in LENGTHS.items()}
    )


def frames_of(folder):
    return {line.split()[0]: int(line.split()[1]) for line in (folder / "utt2num_frames").read_text().splitlines()}


def test_any_number_of_jobs_gives_the_same_matrices(place):
    dump(3)  # two are in the next test
    assert is_right(folder_of())
    assert len(list(folder_of().glob("split3/feats.*.ark"))) == 3
    assert len(list((folder_of() / "log").iterdir())) == 3
    shutil.rmtree("dump")
    lay_out(1)
    in_process(folder_of(), 1)
    dump(1, cmd="true")
    assert is_right(folder_of())


@pytest.mark.parametrize("left", [0, 100, None], ids=["empty", "cut short", "gone"])
def test_an_archive_that_was_there(place, capfd, left):
    """It is computed again, and the other one is left alone."""
    dump(2)
    ark, other = (folder_of() / f"split2/feats.{number}.ark" for number in (1, 2))
    content, before = ark.read_bytes(), other.stat().st_mtime_ns
    ark.unlink()
    if left is not None:
        ark.write_bytes(content[:left])
    dump(2)
    assert f"{folder_of()}: computed again: {ark.resolve()} is missing or truncated\n" in capfd.readouterr().out
    assert is_right(folder_of())
    assert (ark.read_bytes(), other.stat().st_mtime_ns) == (content, before)


def test_other_recordings_at_the_same_paths(place, capfd):
    """Features are of what is in the recordings, whatever their names and times."""
    dump(2)
    state = Path("a-2.wav").stat()
    rng = np.random.default_rng(1)
    soundfile.write("a-2.wav", 0.1 * rng.standard_normal(LENGTHS["a-2"]), RATE)
    os.utime("a-2.wav", ns=(state.st_atime_ns, state.st_mtime_ns))
    note_md5s()
    dump(2)
    assert f"{folder_of()}: computed again: the recordings changed (a-2)\n" in capfd.readouterr().out
    assert is_right(folder_of())


def test_recordings_that_changed_after_stage_0_are_refused(place):
    soundfile.write("a-2.wav", np.linspace(-0.5, 0.5, LENGTHS["a-2"]), RATE)
    lay_out(1)
    with pytest.raises(UserError, match=r"a-2\.wav: a-2 changed after utt2md5 was written; run stages 0 and 1 again$"):
        in_process(folder_of(), 1)


def test_other_code_makes_the_features_anew(place, capfd, monkeypatch):
    dump(1)
    sources = runs.sources
    monkeypatch.setattr(runs, "sources", lambda *modules: {**sources(*modules), "ser.features.logmel": "edited"})
    with pytest.raises(UserError, match="a job failed"):  # which sees the code as it is
        dump(1)
    assert f"{folder_of()}: computed again: code (ser.features.logmel) changed\n" in capfd.readouterr().out
    log = (folder_of() / "log/dump.1.log").read_text()
    assert f"error: {folder_of()}: the code changed after the job was prepared; run stage 2 again" in log
    assert not (folder_of() / "feats.scp").exists()
    monkeypatch.undo()
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    dump(1)
    assert is_right(folder_of())


def test_a_corpus_that_was_moved_has_the_same_features(place, capfd):
    dump(1)
    Path("elsewhere").mkdir()
    for utt in LENGTHS:
        Path(f"{utt}.wav").rename(f"elsewhere/{utt}.wav")
    Path("data/wav.scp").write_text("".join(f"{utt} {place}/elsewhere/{utt}.wav\n" for utt in LENGTHS))
    dump(1, cmd="false")
    assert capfd.readouterr().out.endswith("all 5 utterances are up to date\n")


def test_the_index_can_be_read_from_anywhere(place, monkeypatch):
    dump(1)
    scp = folder_of().resolve() / "feats.scp"
    monkeypatch.chdir("/")
    assert len(dict(kaldiio.load_scp(str(scp)))) == 5


def test_one_failing_recording_and_going_on(place, capfd):
    good = Path("a-0.wav").read_bytes()  # the shortest: with two jobs it is in the first one's part
    Path("a-0.wav").write_bytes(good[:100])
    with pytest.raises(UserError) as error:
        dump(2)
    assert str(error.value).startswith(f"{folder_of()}: a job failed; see its log, fix the cause")
    shown = capfd.readouterr().err
    assert "log/dump.1.log" in shown
    assert f"error: {place}/a-0.wav: cut short" in shown
    assert "Traceback" not in shown
    assert f"error: {place}/a-0.wav: cut short" in (folder_of() / "log/dump.1.log").read_text()
    assert not (folder_of() / "feats.scp").exists()
    assert not (folder_of() / "split2/feats.1.ark").exists()

    finished = folder_of() / "split2/feats.2.ark"
    before = finished.stat()
    Path("a-0.wav").write_bytes(good)
    dump(2)
    assert (finished.stat().st_ino, finished.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert is_right(folder_of())

    capfd.readouterr()
    dump(2, cmd="false")  # no job is started for what is all there
    assert capfd.readouterr().out == f"{folder_of()}: all 5 utterances are up to date\n"


def in_process(folder, nj):
    """Do the jobs that a call laid out here, without starting Python again."""
    for job in range(1, nj + 1):
        dump_features.main(["--job", str(job), "data", str(folder / f"split{nj}")])


def lay_out(nj, systems=("conf/a.yaml",)):
    with pytest.raises(UserError):
        dump(nj, systems, "false")


def test_a_part_whose_recordings_changed_is_made_again(place):
    lay_out(1)
    in_process(folder_of(), 1)
    dump(1, cmd="true")
    soundfile.write("b-0.wav", np.tile([0.5, -0.5], 200), RATE)
    with open("data/wav.scp", "a") as wavs, open("data/utt2dur", "a") as durations:
        wavs.write(f"b-0 {place}/b-0.wav\n")
        durations.write("b-0 0.05\n")
    with open("data/utt2spk", "a") as speakers:  # and no utt2md5, as in a data directory that is made by hand
        speakers.write("b-0 b\n")
    lay_out(1)
    assert not (folder_of() / "feats.scp").exists()  # it would point into an archive that is about to change
    in_process(folder_of(), 1)
    dump(1, cmd="true")
    assert frames_of(folder_of()).keys() == LENGTHS.keys() | {"b-0"}
    assert len(kaldiio.load_scp(str(folder_of() / "feats.scp"))["b-0"]) == 1 + 400 // 80


def test_the_jobs_are_of_like_length(place):
    lay_out(2)
    wavs = [
        line.split()[0] for job in (1, 2) for line in (folder_of() / f"split2/wav.{job}.scp").read_text().splitlines()
    ]
    assert sorted(wavs) == sorted(LENGTHS)
    sums = [
        sum(LENGTHS[line.split()[0]] for line in (folder_of() / f"split2/wav.{job}.scp").read_text().splitlines())
        for job in (1, 2)
    ]
    assert max(sums) - min(sums) <= max(LENGTHS.values())


def test_more_jobs_than_recordings(place):
    lay_out(9)
    assert sorted(path.name for path in folder_of().iterdir()) == ["feature.yaml", "split5"]


def test_a_feature_that_two_systems_share_is_made_once(place, capfd):
    write_system("b", FEATURE)
    lay_out(1)
    in_process(folder_of(), 1)
    capfd.readouterr()
    dump(systems=("conf/a.yaml", "conf/b.yaml"), cmd="true")
    assert capfd.readouterr().out == f"{folder_of()}: 5 utterances\n"
    write_system("c", FEATURE.replace("n_mels: 8", "n_mels: 9"))
    lay_out(1, ("conf/a.yaml", "conf/c.yaml"))
    assert sorted(Path("dump").iterdir()) == sorted([folder_of("a"), folder_of("c")])
    assert capfd.readouterr().out == f"{folder_of()}: all 5 utterances are up to date\n"


def test_the_settings_stand_beside_the_features(place):
    lay_out(1)
    made = yaml.safe_load((folder_of() / "feature.yaml").read_text())
    assert list(made.pop("code")) == ["ser.dsp", "ser.extract", "ser.features.logmel", "ser.noise", "ser.spectra"]
    assert made == yaml.safe_load(FEATURE) | {
        "top_db": 80.0,
        "duration": None,
        "pad": "end",
        "derivatives": 0,
        "noise": None,
    }


def test_noise_that_a_system_or_a_protocol_asks_for_is_added(place):
    system = Path("conf/a.yaml")
    system.write_text(system.read_text() + "augment: [snr10]\n")
    folds = "{kind: groups, by: spk, number: 3}"
    Path("conf/p.yaml").write_text(
        f"description: d\nclasses: {{low: [a], high: [b]}}\nfolds: {folds}\nselect: dev\nnoise: deviation1\n"
    )
    dump_features.main(["--systems", "conf/a.yaml", "--protocols", "conf/p.yaml", "--cmd", RUN, "data", "dump"])
    clean = folder_of()
    assert is_right(clean)
    assert sorted(path.name for path in Path("dump").iterdir()) == [
        clean.name,
        f"{clean.name}-deviation1",
        f"{clean.name}-snr10",
    ]
    settings = {key: value for key, value in yaml.safe_load(FEATURE).items() if key != "kind"}
    config = logmel.Config(**settings | {"fmin": 0.0, "fmax": 4000.0})
    for kind in ("snr10", "deviation1"):
        for utt, matrix in kaldiio.load_scp(str(Path("dump", f"{clean.name}-{kind}", "feats.scp"))).items():
            samples, _ = soundfile.read(f"{utt}.wav", dtype="float32")
            assert np.array_equal(matrix, logmel.extract(noise.add(samples, kind, utt), config))


def test_a_recording_at_another_rate_is_resampled(place):
    soundfile.write("a-0.wav", np.linspace(-0.5, 0.5, 16000), 16000)
    note_md5s()
    lay_out(1)
    in_process(folder_of(), 1)
    assert len(kaldiio.load_scp(str(folder_of() / "split1/feats.1.scp"))["a-0"]) == 1 + 8000 // 80


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_features_that_are_not_finite(place, monkeypatch):
    extract, length = logmel.extract, LENGTHS["a-3"]
    monkeypatch.setattr(
        logmel, "extract", lambda samples, config: extract(samples, config) * (np.nan if len(samples) == length else 1)
    )
    lay_out(1)
    with pytest.raises(UserError) as error:
        in_process(folder_of(), 1)
    assert str(error.value) == f"{place}/a-3.wav: a-3: gives non-finite values; leave out the recording"
    assert not (folder_of() / "split1/frames.1").exists()
    assert not list((folder_of() / "split1").glob("feats*"))


def test_a_recording_shorter_than_the_features_window(place):
    soundfile.write("a-3.wav", np.linspace(0, 1, 199), RATE)
    note_md5s()
    lay_out(1)
    with pytest.raises(UserError) as error:
        in_process(folder_of(), 1)
    assert (
        str(error.value)
        == f"{place}/a-3.wav: a-3: too short: 199 samples at 8000 Hz, but a window needs 200; leave out the recording"
    )


def pipe(place, command):
    wavs = Path("data/wav.scp")
    wavs.write_text(wavs.read_text().replace(f"a-3 {place}/a-3.wav", f"a-3 {command}"))


def test_pipes_are_refused_unless_they_are_allowed(place, capfd):
    pipe(place, f"touch ran; cat {place}/a-3.wav |")
    for options in (["--cmd", RUN], ["--cmd", "false"]):
        with pytest.raises(UserError) as error:
            dump_features.main(["--systems", "conf/a.yaml", *options, "data", "dump"])
        assert str(error.value) == (
            f"data/wav.scp:4: a-3 is a shell command, 'touch ran; cat {place}/a-3.wav |'; "
            "replace it by a file, or allow it with ser.dump_features --allow-pipes"
        )
    assert not Path("dump").exists() and not Path("ran").exists()
    dump_features.main(["--systems", "conf/a.yaml", "--nj", "2", "--cmd", RUN, "--allow-pipes", "data", "dump"])
    assert Path("ran").exists()
    assert is_right(folder_of())
    (parts,) = folder_of().glob("split2")
    (parts / "frames.1").unlink()
    (parts / "frames.2").unlink()
    with pytest.raises(UserError, match="is a shell command"):  # nor does a job by itself run them
        in_process(folder_of(), 2)


def test_a_command_that_fails(place):
    pipe(place, "echo no such thing >&2; false |")
    with pytest.raises(UserError):
        dump_features.main(["--systems", "conf/a.yaml", "--cmd", "false", "--allow-pipes", "data", "dump"])
    with pytest.raises(UserError) as error:
        dump_features.main(["--job", "1", "--allow-pipes", "data", str(folder_of() / "split1")])
    assert (
        str(error.value)
        == f"{folder_of()}/split1/wav.1.scp: a-3: echo no such thing >&2; false |: exit status 1 (no such thing); fix the command"
    )


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        ("wav.scp", "", "data/wav.scp: empty table; add the recordings, or run stage 0 again if it wrote the table"),
        ("wav.scp", "a-0\n", "data/wav.scp:1: a-0 has no recording; add its path"),
        (
            "utt2dur",
            "a-0 1\n",
            "data/utt2dur: no line for a-1, a-2, a-3 and 1 more; add them, or run the stage that writes the table again",
        ),
        (
            "utt2dur",
            "".join(f"{utt} 1s\n" for utt in LENGTHS),
            "data/utt2dur: could not convert string to float: '1s'; run stage 0 again",
        ),
    ],
)
def test_tables_that_are_not_as_they_should_be(place, table, content, message):
    Path("data", table).write_text(content)
    with pytest.raises(UserError) as error:
        dump(cmd="false")
    assert str(error.value) == message
    assert not Path("dump").exists()


def test_no_jobs(place, capsys):
    with pytest.raises(SystemExit):
        dump(nj=0)
    assert "--nj 0: must be 1 or more" in capsys.readouterr().err


def test_folders_may_hold_the_name_of_a_job(place):
    """As /scratch/JOBS: the runners put a job's number wherever its name stands."""
    Path("JOBS").mkdir()
    Path("data").rename("JOBS/data_JOB")
    dump_features.main(["--systems", "conf/a.yaml", "--nj", "2", "--cmd", RUN, "JOBS/data_JOB", "JOBS/dump"])
    Path("dump").symlink_to("JOBS/dump")
    assert is_right(folder_of())
    assert sorted(path.name for path in (folder_of() / "log").iterdir()) == ["dump.1.log", "dump.2.log"]


def test_another_call_is_waited_for(place, capsys):
    with ThreadPoolExecutor(1) as pool:
        with alone(folder_of().with_name(f".{folder_of().name}.lock"), "the other call"):
            call = pool.submit(dump)
            said = ""
            while "; waiting for it to finish\n" not in said and not call.done():
                said += capsys.readouterr().out
            assert said.startswith(f"{folder_of()} is in use by process {os.getpid()} on ")
            assert not folder_of().exists()
        call.result()
    assert is_right(folder_of())
    assert [path.name for path in Path("dump").iterdir()] == [folder_of().name]  # no lock is left


def test_features_of_a_network_in_batches_of_a_gpu(place, tiny_encoder, monkeypatch):
    """Three recordings at a time, as on a GPU, give what one at a time gives; a fault names its recording."""
    import torch

    from ser import encoders, extract_many, networks

    network, extractor = encoders.load(tiny_encoder)
    weights = encoders.checksum(tiny_encoder, network.config, extractor)
    settings = f"model: {tiny_encoder}, weights: '{weights}', layers: [1], longest: 1.0"
    write_system("a", f"{{kind: pretrained, {settings}}}")
    dump()
    alone = dict(kaldiio.load_scp(str(folder_of() / "feats.scp")))
    assert alone.keys() == LENGTHS.keys()

    shutil.rmtree("dump")
    lay_out(1)
    sizes, real = [], extract_many.extract_many

    def on_gpu(recordings, config, noise, device):
        sizes.append(len(recordings))
        return real(recordings, config, noise, {"cuda": "cpu"}[device])

    monkeypatch.setattr(extract_many, "extract_many", on_gpu)
    monkeypatch.setattr(dump_features, "BATCH", 3)
    monkeypatch.setattr(networks, "device", lambda name: torch.device("cuda"))
    in_process(folder_of(), 1)
    dump(cmd="true")
    assert sizes == [3, 2]
    together = dict(kaldiio.load_scp(str(folder_of() / "feats.scp")))
    assert all(np.allclose(together[utt], alone[utt], atol=1e-5) for utt in LENGTHS)

    soundfile.write("a-3.wav", 0.1 * np.sin(np.arange(200)), RATE)
    note_md5s()
    with pytest.raises(
        UserError, match=r"a-3\.wav: a-3: too short: 400 samples at 16000 Hz, .*; leave out the recording"
    ):
        lay_out(1)
        in_process(folder_of(), 1)
