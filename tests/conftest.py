"""A toy recipe, which several tests run: two classes that a tiny network tells apart in a second."""

from pathlib import Path

import pytest

CLASSES = ("low", "high")
SPEAKERS = {"a": 14, "b": 14, "c": 10, "d": 12}  # utterances of each
PARTS = {"train": "ab", "dev": "c", "test": "d"}  # of fold 1; of fold 2 the other way round
FEATURE = {
    "kind": "logmel", "sample_rate": 8000, "n_fft": 256, "win_length": 200, "hop_length": 80, "n_mels": 6,
    "fmin": 0, "fmax": 4000, "window": "hann",
}  # fmt: skip
NETWORK = {
    "kind": "sherman", "window": 8, "hop": 4, "channels": [4, 6], "pools": [2, 2], "norm_momentum": 0.3, "activation": "elu",
    "dropout": 0.1, "hidden_size": 4, "attention_size": 4, "state_l1": 0.001,
}  # fmt: skip
TRAINING = {"epochs": 3, "batch_size": 8, "learning_rate": 0.01}
SVM = {"kind": "svm", "functionals": ["mean", "deviation"], "cost": [1, 10], "gamma": [0.3, 1], "inner_folds": 2}


class Recipe:
    """A recipe's folder after stage 2, made without the code that is tested. `folder` is where the
    test stands; systems are tiny.yaml (a network) and svm.yaml, protocols selects_on_{dev,test,last}.yaml."""

    def __init__(self, folder: Path) -> None:
        import kaldiio
        import numpy as np
        import yaml

        from ser.config import feature_name, read_system

        self.folder = folder
        rng = np.random.default_rng(0)
        self.matrices, self.classes = {}, {}
        for speaker, number in SPEAKERS.items():
            for place in range(number):
                utt = f"{speaker}-{place:02d}"
                self.classes[utt] = CLASSES[place % 3 == 0]  # twice as many are low
                matrix = rng.standard_normal((rng.integers(5, 25), 6)) - 30
                matrix[:, :3] += 1.2 * (self.classes[utt] == "low")
                matrix[:, 3:] += 1.2 * (self.classes[utt] == "high")
                self.matrices[utt] = matrix.astype(np.float32)

        self.write_yaml(
            "conf/toy/tiny.yaml",
            description="a tiny network",
            feature=FEATURE,
            normalisation="global",
            model=NETWORK,
            training=TRAINING,
        )
        self.write_yaml("conf/toy/svm.yaml", description="a machine", feature=FEATURE, normalisation="none", model=SVM)
        classes = {"low": ["calm"], "high": ["angry"]}
        for select in ("dev", "test", "last"):
            groups = {"kind": "groups", "by": "spk", "number": 4}
            self.write_yaml(
                f"conf/protocols/selects_on_{select}.yaml",
                description=f"toy, {select}",
                classes=classes,
                folds=groups,
                select=select,
            )
            for fold, order in ((1, 1), (2, -1)):
                place = folder / f"data/folds/selects_on_{select}/fold{fold}"
                place.mkdir(parents=True)
                for part, speakers in zip(PARTS, list(PARTS.values())[::order], strict=True):
                    utts = [utt for utt in self.classes if utt[0] in speakers and (select == "dev" or part != "dev")]
                    (place / part).write_text("".join(f"{utt} {self.classes[utt]}\n" for utt in utts))
                (place / "overlap").write_text(
                    f"sizes of fold {fold}\ntrain and test share nothing\ndev and test share nothing\n"
                )
            (place.parent / "classes").write_text("0 low\n1 high\n")

        (folder / "data/all").mkdir()
        (folder / "data/all/utt2spk").write_text("".join(f"{utt} {utt[0]}\n" for utt in self.classes))
        (folder / "data/all/utt2md5").write_text("".join(f"{utt} md5-of-{utt}\n" for utt in sorted(self.classes)))
        dump = folder / "dump" / feature_name(read_system(folder / "conf/toy/tiny.yaml").feature)
        dump.mkdir(parents=True)
        with kaldiio.WriteHelper(f"ark,scp:{dump}/feats.ark,{dump}/feats.scp") as writer:
            for utt, matrix in self.matrices.items():
                writer(utt, matrix)
        (dump / "utt2num_frames").write_text("".join(f"{utt} {len(matrix)}\n" for utt, matrix in self.matrices.items()))
        self.yaml = yaml
        self.seal(dump)

    def seal(self, dump: Path, kind: str = "logmel", *more: str) -> None:
        """Say in a feature's folder that today's code made it of the recordings that there are. more: modules."""
        from ser.identity import sources

        code = dict(sources(f"ser.features.{kind}", "ser.extract", *more))
        (dump / "feature.yaml").write_text(self.yaml.safe_dump({"code": code}))
        (dump / "utt2md5").write_text((self.folder / "data/all/utt2md5").read_text())

    def write_yaml(self, name: str, **content) -> None:
        import yaml

        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(yaml.safe_dump(content, sort_keys=False))

    def part(self, name: str) -> list[str]:
        """The utterances of a part of fold 1."""
        return [utt for utt in self.classes if utt[0] in PARTS[name]]

    def lay_out(
        self, name: str, select: str = "dev", system: str = "tiny", seed: int = 1, fold: int = 1, model=None, **training
    ) -> Path:
        """Make a run's folder exp/<name>, ready to train; return it. training: changes to TRAINING."""
        from dataclasses import replace

        from ser.config import make_system, read_protocol
        from ser.runs import Run, write_run

        content = self.yaml.safe_load((self.folder / f"conf/toy/{system}.yaml").read_text()) | {
            "name": system,
        }
        content["model"] |= model or {}
        content["training"] = content.get("training") and content["training"] | training
        protocol = read_protocol(self.folder / f"conf/protocols/selects_on_{select}.yaml")
        made = {"command": "a test", "commit": "0", "machine": "this", "versions": {"python": "3"}}
        run = Run(
            folder=self.folder / "exp" / name, corpus="toy", system=make_system(content, "toy"), protocol=protocol, fold=fold, seed=seed,
            data=Path("data/all"), folds=Path("data/folds") / protocol.name, dump=Path("dump"), made=made,
        )  # fmt: skip
        write_run(replace(run))
        return run.folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> Path:
    """The folder of a Whisper encoder of two layers of 16 values, with random weights."""
    from ser.tiny_encoder import make

    folder = tmp_path_factory.mktemp("models") / "tiny"
    make(folder)
    return folder


@pytest.fixture(scope="session")
def bfloat16_lstms() -> None:
    """Skips a test on a CPU that cannot run LSTMs in bfloat16."""
    import torch

    try:
        with torch.autocast("cpu", torch.bfloat16):
            torch.nn.LSTM(6, 5, batch_first=True)(torch.zeros(1, 2, 6))
    except RuntimeError as error:
        pytest.skip(f"this CPU cannot run LSTMs in bfloat16: {error}")


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Recipe:
    """The toy recipe, in whose folder the test stands. Torch has one thread, as in a job."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    yield Recipe(tmp_path)
    torch.set_num_threads(threads)


@pytest.fixture
def noisy(recipe):
    """The toy recipe's first fold, trained with copies of two noises; the features of a noise are told by their sign."""
    import kaldiio

    from ser.runs import read_run

    system = recipe.yaml.safe_load(Path("conf/toy/tiny.yaml").read_text())
    recipe.write_yaml("conf/toy/tiny.yaml", **system, augment=["snr10", "snr0"])
    protocol = recipe.yaml.safe_load(Path("conf/protocols/selects_on_dev.yaml").read_text())
    recipe.write_yaml("conf/protocols/selects_on_dev.yaml", **protocol, noise="deviation1")
    run = read_run(recipe.lay_out("run"))
    for noise, factor in (("snr10", 2), ("snr0", 3), ("deviation1", -1)):
        folder = run.feature_folder(noise)
        folder.mkdir()
        with kaldiio.WriteHelper(f"ark,scp:{folder}/feats.ark,{folder}/feats.scp") as writer:
            for utt, matrix in recipe.matrices.items():
                writer(utt, factor * matrix)
        (folder / "utt2num_frames").write_text(
            "".join(f"{utt} {len(matrix)}\n" for utt, matrix in recipe.matrices.items())
        )
        recipe.seal(folder)
    return recipe, run


@pytest.fixture
def encoded(recipe, tiny_encoder):
    """The toy recipe, with the states of the layers 2, 0 and 1 of the tiny encoder in a frame: the class is in the first
    four of the 16 values of layer 0, and all else is noise. Systems are superb.yaml (a network) and encoder_svm.yaml.
    """
    import kaldiio
    import numpy as np

    from ser import encoders
    from ser.config import feature_name, read_system

    network, extractor = encoders.load(tiny_encoder)
    feature = {
        "kind": "pretrained", "model": str(tiny_encoder), "layers": [2, 0, 1],
        "weights": encoders.checksum(tiny_encoder, network.config, extractor),
    }  # fmt: skip
    machine = {"kind": "encoder_svm", "layers": "best", "cost": [1, 10], "gamma": [1], "inner_folds": 2}
    told = {"description": "on an encoder", "feature": feature}
    recipe.write_yaml("conf/toy/encoder_svm.yaml", **told, normalisation="none", model=machine)
    superb = {"kind": "superb", "projection": 6}
    recipe.write_yaml("conf/toy/superb.yaml", **told, normalisation="global", model=superb, training=TRAINING)
    rng = np.random.default_rng(3)
    for utt, of_class in recipe.classes.items():
        recipe.matrices[utt] = rng.standard_normal((rng.integers(5, 25), 48)).astype(np.float32)
        recipe.matrices[utt][:, 16:20] += 0.8 * (of_class == "high")
    dump = Path("dump") / feature_name(read_system("conf/toy/superb.yaml").feature)
    dump.mkdir()
    with kaldiio.WriteHelper(f"ark,scp:{dump}/feats.ark,{dump}/feats.scp") as writer:
        for utt, matrix in recipe.matrices.items():
            writer(utt, matrix)
    (dump / "utt2num_frames").write_text("".join(f"{utt} {len(frames)}\n" for utt, frames in recipe.matrices.items()))
    recipe.seal(dump, "pretrained", "ser.extract_many")
    return recipe


@pytest.fixture
def spoken(recipe):
    """The toy recipe, in which low utterances say "yes" and high ones "oh no", each with a word of its own; and with x-vectors."""
    import kaldiio
    import numpy as np

    rng = np.random.default_rng(1)
    texts = {utt: f"{'yes' if name == 'low' else 'oh no'} {utt[0]}{utt[-2:]}" for utt, name in recipe.classes.items()}
    Path("data/all/text").write_text("".join(f"{utt} {text}\n" for utt, text in texts.items()))
    with kaldiio.WriteHelper("ark,scp:data/all/xvector.ark,data/all/xvector.scp") as writer:
        for utt in recipe.classes:
            writer(utt, rng.standard_normal(3).astype(np.float32))
    peng = {
        "kind": "peng", "audio_kernels": [3], "audio_pooling": ["max", "mean"], "xvectors": True, "text_kernels": [1], "text_pooling": ["mean"],
        "words": "text", "word_size": 4, "swem": True, "attention": True, "filters": 5, "reduced_size": 6, "dropout": 0.2,
    }  # fmt: skip
    recipe.write_yaml(
        "conf/toy/peng.yaml", **recipe.yaml.safe_load(Path("conf/toy/tiny.yaml").read_text()) | {"model": peng}
    )
    return recipe


class Scored:
    """A recipe's folder, egs/toy, with made-up scores, without the code that is tested. The test stands in it. It has
    the systems alpha and gamma in conf/a and beta in conf/b, the protocols apart, paper and plain, which select by
    development set, test set and not at all, and neither papers nor scores."""

    TABLE = {
        "number": "III",
        "title": "layers",
        "protocol": "paper",
        "honest": "apart",
        "rows": [
            {"name": "two layers", "wa": 61.5, "systems": ["beta", "alpha"]},
            {"name": "others' [7]", "wa": 70, "note": "± 2", "systems": []},
        ],
    }

    def __init__(self) -> None:
        for name in ("a/alpha", "a/gamma", "b/beta"):
            self.write_system(name)
        for name, select in (("apart", "dev"), ("paper", "test"), ("plain", "last")):
            self.write_protocol(name, select=select)

    def write_yaml(self, path: str, content: dict) -> None:
        import json

        import yaml

        content = json.loads(json.dumps(content))  # what stands twice is written out twice
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None))

    def write_system(self, name: str, normalisation: str = "none", recipe: str = ".") -> None:
        told = {
            "description": f"the {Path(name).stem}",
            "feature": FEATURE,
            "normalisation": normalisation,
            "model": SVM,
        }
        self.write_yaml(f"{recipe}/conf/{name}.yaml", told)

    def write_protocol(self, name: str, **content) -> None:
        folds = {"kind": "groups", "by": "spk", "number": 3}
        told = {"description": f"about {name}", "classes": {"low": ["calm"], "high": ["angry"]}, "folds": folds}
        self.write_yaml(f"conf/protocols/{name}.yaml", told | content)

    def write_paper(self, *tables: dict, key: str = "ours", recipe: str = ".") -> None:
        """A paper's file; a table is TABLE but for what is given of it."""
        told = {
            "name": f"{key.title()} et al.",
            "reference": "authors, title",
            "tables": [self.TABLE | one for one in tables],
        }
        self.write_yaml(f"{recipe}/conf/papers/{key}.yaml", told)

    def code(self, system: str, protocol: str) -> str:
        """The fingerprint of the current code of a system's file under a protocol."""
        from ser.config import read_protocol, read_system
        from ser.identity import fingerprint
        from ser.runs import code_of

        return fingerprint(dict(code_of(read_system(system), read_protocol(f"conf/protocols/{protocol}.yaml"))))

    def write_scores(
        self, system: str, protocol: str, run: str, answers: str, own: bool = False, row: dict | None = None, **about
    ) -> Path:
        """Scores as stage 5 writes them; return their file. answers: first letters of the classes of the truth and of
        the prediction, such as "llhh lllh". row: changes to the parts of its identity. about: changes to the header;
        what is None is left out."""
        import json

        from ser.config import read_protocol, read_system
        from ser.identity import settings

        fold, _, seed = run.removeprefix("fold").partition("_seed")
        (path,) = [*Path().glob(f"conf/?/{system}.yaml"), *Path("..").glob(f"other/conf/?/{system}.yaml")]
        told = {"system": read_system(path), "protocol": read_protocol(f"conf/protocols/{protocol}.yaml")}
        parts = {"code": self.code(path, protocol), "folds": "f", "recordings": "r", "speakers": "s"} | (row or {})
        header = {
            "corpus": "toy", "fold": f"{fold} of 3", "seed": seed, "overlap": f"sizes {fold}; shared {fold}",
            "train_seconds": 90, "date": "2026-01-01 10:00", "commit": "abc", "machine": "m", "modules": "ser.x 1",
            "trainer": "t", "row": " ".join(f"{part} {value}" for part, value in parts.items()),
            **{f"{part} settings": json.dumps(settings(config)) for part, config in told.items()},
        } | about  # fmt: skip
        lines = [f"# {key}: {value}" for key, value in header.items() if value is not None]
        lines.append(f"# utt true predicted {' '.join(CLASSES)}")
        names = {name[0]: name for name in CLASSES}
        for number, (true, predicted) in enumerate(zip(*answers.split(), strict=True)):
            posteriors = "0.900000 0.100000" if predicted == "l" else "0.400000 0.600000"
            lines.append(f"{fold}-{number:04} {names[true]} {names[predicted]} {posteriors}")
        path = Path("results", system, protocol, "own" * own, f"{run}.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return path

    def write_speakers(self, speaker_of=lambda fold, number: number) -> None:
        """Write results/utt2spk. speaker_of: the speaker of an utterance of a fold; default: each its own."""
        lines = [line for path in Path("results").rglob("fold*.txt") for line in path.read_text().splitlines()]
        utts = sorted({line.split()[0] for line in lines if not line.startswith("#")})
        speakers = {utt: speaker_of(*map(int, utt.split("-"))) for utt in utts}
        Path("results/utt2spk").write_text("".join(f"{utt} s{speaker}\n" for utt, speaker in speakers.items()))


@pytest.fixture
def scored(tmp_path, monkeypatch) -> Scored:
    """The recipe with made-up scores, in whose folder the test stands."""
    (tmp_path / "egs/toy").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "egs/toy")
    return Scored()
