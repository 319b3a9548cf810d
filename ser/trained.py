"""A trained model, for use from Python: what `ser.load` returns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ser import adaptation, audio, inputs, learners
from ser.cli import UserError
from ser.extract import extract
from ser.normalisation import normalise, statistics
from ser.reading import Inputs, Matrices
from ser.runs import read_run

Recording = str | Path | np.ndarray


class Prediction(NamedTuple):
    """label: the class with the highest probability. probabilities: {class: 0 to 1}, which sum to 1. For
    models without probabilities, such as SVMs, they only rank the classes and are not calibrated."""

    label: str
    probabilities: dict[str, float]


class Model:
    """The model of a finished run, to use on your own recordings.

    run: its ser.runs.Run. classes: their names, in the order of the posteriors. folder: the run's folder or a copy of
    it; nothing else is needed. Raises UserError if the run is not finished, if the code of its feature or model has
    changed since, or if one of its files is damaged.
    """

    def __init__(self, folder: str | Path, device: str = "auto") -> None:
        refuse_other_folder(Path(folder))
        self.run = read_run(folder)
        if not self.run.is_done:
            raise UserError(f"{folder}: not done; run stage 3 or 4")
        self.run.refuse_other_code()
        self.classes = list(self.run.protocol.classes)
        self.learned = learners.load(self.run, device)
        # of the training part, towards which a speaker's statistics are shrunk
        self.moments = adaptation.read(self.run.adaptation) if self.run.adapts else None

    def __repr__(self) -> str:
        return f"<Model of {self.run.folder}: {self.run.system.name}, classes {', '.join(self.classes)}>"

    def predict(
        self, recording: Recording | list[Recording] | tuple[Recording, ...], rate: int | None = None, **given: Any
    ) -> Prediction | list[Prediction]:
        """The class that the model predicts for a recording; a list for a list.

        recording: a file, or samples (N,): floats with full scale at +-1, or signed integers with the full scale of
        their type. rate: sampling rate of samples, in Hz. given: inputs beside frames, by name, such as
        words="the transcript" or xvectors=array; for a list of recordings, a list each. A system with normalisation by
        speaker assumes that all recordings of a list are of one speaker, and normalises them together, unless its
        protocol adapts to no utterance. Raises UserError if a recording cannot be read, or an input of the system is
        missing.
        """
        is_many = isinstance(recording, list | tuple)
        recordings = list(recording) if isinstance(recording, list | tuple) else [recording]
        names = [str(number) for number in range(len(recordings))]
        if not names:
            return []
        values = {}
        for name, value in given.items():
            of_each = list(value) if is_many and isinstance(value, list | tuple | np.ndarray) else [value]
            if len(of_each) != len(names):
                raise UserError(f"{name}: {len(of_each)} values for {len(names)} recordings; give one for each")
            values[name] = dict(zip(names, of_each, strict=True))
        extras = self.extras(values)
        matrices = {name: self.features(one, rate) for name, one in zip(names, recordings, strict=True)}
        posteriors = self.posteriors(self.normalised(matrices), extras)
        found = [
            Prediction(self.classes[row.argmax()], dict(zip(self.classes, row.tolist(), strict=True)))
            for row in posteriors
        ]
        return found if is_many else found[0]

    def features(self, recording: Recording, rate: int | None = None) -> np.ndarray:
        """The frames (T, D) float32 of a recording, computed by the system's feature. Arguments: as for `predict`."""
        if isinstance(recording, np.ndarray):
            place, samples = "samples", checked(recording)
            if not isinstance(rate, int | np.integer) or rate < 1:
                raise UserError(f"samples: rate={rate!r}; give their sampling rate, a whole number of Hz")
        elif not isinstance(recording, str | Path):
            raise UserError(f"{type(recording).__name__}: not a recording; give a path, or samples as a numpy array")
        elif rate is not None:
            raise UserError(f"{recording}: rate={rate!r}; leave it out, since a file states its own")
        else:
            place = str(recording)
            samples, rate = audio.read(recording)
        try:
            matrix = extract(samples, rate, self.run.system.feature)
        except UserError as error:
            remedy = "" if "; " in str(error) else "; leave it out"
            raise UserError(f"{place}: {error}{remedy}") from None
        matrix = matrix if self.run.columns is None else matrix[:, self.run.columns]
        if matrix.shape[1] != self.learned.sizes["n_features"]:
            wanted = self.learned.sizes["n_features"]
            raise UserError(
                f"{self.run.folder}: its model takes {wanted} values per frame, but its feature has "
                f"{matrix.shape[1]}; use another run"
            )
        return matrix

    @property
    def is_by_speaker(self) -> bool:
        """Whether recordings are normalised together, as those of one speaker."""
        adapt = self.run.protocol.adapt
        return self.run.system.normalisation == "speaker" and (adapt is None or adapt.utterances > 0)

    def normalised(self, matrices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Features, normalised by speaker if the system does that: all are of one speaker."""
        adapt = self.run.protocol.adapt
        if self.run.system.normalisation != "speaker" or not matrices:
            return dict(matrices)
        if not (adapt and self.moments):
            found = statistics(matrices.values())
        elif self.is_by_speaker:
            own = adaptation.moments(matrices.values())
            found = adaptation.shrunk(own, self.moments, len(matrices), adapt.relevance)
        else:
            found = adaptation.shrunk(None, self.moments, 0, adapt.relevance)
        return {name: normalise(matrix, found) for name, matrix in matrices.items()}

    def extras(self, values: Mapping[str, Mapping[str, Any]]) -> dict[str, inputs.Extra]:
        """Convert inputs beside frames, {input: {recording: value}}, for the learner. Raises UserError if an input of
        the system is missing, or if it does not read one that is given."""
        unknown = sorted(values.keys() - inputs.every().keys())
        if unknown:
            raise UserError(f"{unknown[0]}: unknown input; one of {', '.join(inputs.every())}")
        extras = {}
        for name, module in inputs.every().items():
            is_read = name in self.run.system.extras and hasattr(module, "given")
            if is_read and not values.get(name):
                raise UserError(
                    f"{self.run.folder}: its system reads {module.NOUN}; give {module.OPTIONS} (in Python {name}=)"
                )
            if values.get(name) and not is_read:
                what = f"{module.NOUN}; leave {module.OPTIONS}" if hasattr(module, "given") else f"{name}; leave that"
                raise UserError(f"{self.run.folder}: its system does not read {what} out")
            if is_read:
                extras[name] = module.given(self.run, values[name], self.learned.sizes)
        return extras

    def posteriors(self, matrices: Mapping[str, np.ndarray], extras: Mapping[str, inputs.Extra]) -> np.ndarray:
        """Posteriors (N, classes) of recordings, from their normalised features. Raises UserError if some are not
        finite."""
        names = list(matrices)
        given = Inputs(Matrices(matrices), dict.fromkeys(names, 0), len(self.classes), extras)
        posteriors = self.learned.posteriors(given, names)
        if not np.isfinite(posteriors).all():
            raise UserError(
                f"{self.run.folder}: gives infinite or undefined posteriors for a recording; use another run"
            )
        return posteriors


def checked(samples: np.ndarray) -> np.ndarray:
    """Samples (N,) as float32 with full scale at +-1."""
    if samples.ndim != 1 or not len(samples):
        raise UserError(f"samples: shape {samples.shape}; give one channel, (N,)")
    if np.issubdtype(samples.dtype, np.signedinteger):
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise UserError(f"samples: type {samples.dtype}; give floats with full scale at +-1")
    if not np.isfinite(samples).all():
        raise UserError("samples: some are infinite or undefined; remove them")
    return samples.astype(np.float32)


def refuse_other_folder(folder: Path) -> None:
    """Raise UserError if a folder is not that of a run."""
    what = "give the folder of a run, exp/<system>/<protocol>/<run>"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {what}")
    if not (folder / "run.yaml").exists():
        deeper = sorted(run for depth in ("*", "*/*") for run in folder.glob(f"{depth}/run.yaml"))
        finished = [run for run in deeper if run.with_name("done").exists()]
        if deeper:
            raise UserError(f"{folder}: contains runs; give the folder of one: {(finished or deeper)[0].parent}")
        raise UserError(f"{folder}: no run in it; {what}")
