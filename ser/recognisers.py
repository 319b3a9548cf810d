"""Speech recognisers, of torchaudio and of transformers: found by name, loaded, and run on one recording at a time."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser.cli import UserError
from ser.encoders import LOCAL, MODELS, find, quiet_transformers, read_config, reason, refuse_missing

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

URL = "https://download.pytorch.org/torchaudio/models/"  # torchaudio's weights
FILES = ("*.json", "*.safetensors", "*.txt", "*.model")  # of a model of transformers; nothing in them is code
SHORTEST = 0.1  # seconds; shorter recordings are padded with silence, since the networks need 25 ms


@dataclass(frozen=True)
class Recogniser:
    """rate: in Hz. hear: samples (N,) at this rate -> words, single spaces between them. content: what it consists of,
    one word with the checksum of its weights."""

    rate: int
    hear: "Callable[[np.ndarray], str]"
    content: str


def load(name: str, weights: Path | None, language: str | None, place: "torch.device") -> Recogniser:
    """A recogniser on a device: of torchaudio.pipelines by name, or of transformers by folder or name on the hub.

    weights: file with the weights of torchaudio's; None: the file in torch's cache, downloaded if it is not there.
    language: for Whisper in many languages; None: as its own settings say. Raises UserError if there is no such
    recogniser, if an option is not for it, or if it cannot be found, downloaded or loaded.
    """
    if name in _bundles():
        if language is not None:
            raise UserError(f"--language: only for Whisper, not for {name}; leave it out")
        return _of_torchaudio(name, weights, place)
    if "/" not in name and not Path(name).is_dir() and not (MODELS / name).is_dir():
        near = difflib.get_close_matches(name.upper(), _bundles(), 1, 0.5)
        known = f"did you mean {near[0]}?" if near else f"available: {', '.join(sorted(_bundles()))}"
        raise UserError(
            f"--model {name}: torchaudio has no such recogniser; {known} Or a folder, or a name on the hub such as "
            "openai/whisper-tiny.en"
        )
    if weights is not None:
        raise UserError(f"--weights: only for torchaudio's recognisers, not for {name}; give a folder by --model")
    return _of_transformers(find(name, files=FILES), language, place)


def _bundles() -> dict[str, Any]:
    from torchaudio import pipelines

    return {key: value for key, value in vars(pipelines).items() if type(value) is pipelines.Wav2Vec2ASRBundle}


def _of_torchaudio(name: str, weights: Path | None, place: "torch.device") -> Recogniser:
    """A recogniser of torchaudio.pipelines."""
    import torch.hub

    bundle = _bundles()[name]
    url = URL + bundle._path
    remedy = f"download {url}"
    if weights is None:
        from ser.download import fetch

        weights = Path(torch.hub.get_dir(), "checkpoints", bundle._path)
        remedy = "remove the file and run the same command again"
        try:
            fetch(url, weights, None, None)
        except UserError as error:
            raise UserError(f"{error}, or give it by --weights FILE") from None
    elif not weights.is_file():
        raise UserError(f"{weights}: no such file; {remedy}")
    # an existing file is not downloaded; weights_only: never unpickle arbitrary objects
    folder = {"model_dir": str(weights.parent), "file_name": weights.name}
    try:
        network = bundle.get_model(dl_kwargs={**folder, "map_location": "cpu", "weights_only": True})
    except Exception as error:  # torch raises various exceptions for a wrong file
        reason = " ".join(str(error).split()).split(". ")[0][:120] or type(error).__name__
        raise UserError(f"{weights}: not the weights of {name} ({reason}); {remedy}") from None
    network.to(place)
    labels, rate = bundle.get_labels(blank=""), int(bundle.sample_rate)  # CTC's blank comes first
    from ser.identity import md5_of

    return Recogniser(rate, lambda samples: recognise(network, labels, samples, rate), f"{name}:{md5_of(weights)}")


def recognise(network: "nn.Module", labels: Sequence[str], samples: "np.ndarray", rate: int) -> str:
    """The words in samples (N,), at the sampling rate of torchaudio's network, by the best label of each frame."""
    import torch

    waves = torch.from_numpy(padded(samples, rate))[None]
    with torch.inference_mode():
        scores, _ = network(waves.to(next(network.parameters()).device))
    return spell(scores[0].argmax(-1).tolist(), labels)


def spell(path: Iterable[int], labels: Sequence[str]) -> str:
    """Decode a CTC path, one label per frame, into words: repeated labels count once, and `|` ends a word."""
    return " ".join("".join(labels[number] for number, _ in groupby(path)).replace("|", " ").split())


def padded(samples: "np.ndarray", rate: int) -> "np.ndarray":
    """Samples (N,), with silence at the end if they are shorter than SHORTEST."""
    import numpy as np

    return np.pad(samples, (0, max(0, int(SHORTEST * rate) - len(samples))))


def _of_transformers(folder: Path, language: str | None, place: "torch.device") -> Recogniser:
    """A recogniser of transformers: CTC, or sequence to sequence; best label by best label (greedy)."""
    import numpy as np
    import torch

    transformers = quiet_transformers()
    is_ctc, network = _network(transformers, folder)
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **LOCAL)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)
    except Exception as error:  # missing and damaged files are reported in many ways
        raise UserError(
            f"{folder}: its preprocessor_config.json or tokenizer is missing or damaged ({reason(error)}); fetch it "
            "again"
        ) from None
    network = network.eval().to(place)
    rate, longest = int(extractor.sampling_rate), getattr(extractor, "n_samples", None)  # Whisper's: 30 s
    options = {"do_sample": False, "num_beams": 1, **({"language": language} if language else {})}
    if language and language not in _languages(network):
        known = ", ".join(sorted(_languages(network))) or "it has no choice of languages; leave the option out"
        raise UserError(f"--language {language}: not one of {folder}: {known}")

    def hear(samples: "np.ndarray") -> str:
        pieces = np.array_split(samples, -(-len(samples) // longest)) if longest else [samples]
        return " ".join(" ".join(map(words, pieces)).split())

    def words(samples: "np.ndarray") -> str:
        inputs = extractor(padded(samples, rate), sampling_rate=rate, return_tensors="pt", return_attention_mask=True)
        with torch.inference_mode():
            if is_ctc:
                path = network(**inputs.to(place)).logits[0].argmax(-1)
            else:
                path = network.generate(**inputs.to(place), **options)[0]
        return str(tokenizer.decode(path, skip_special_tokens=not is_ctc))  # for CTC the blank is a special token

    files = sorted(path for pattern in FILES for path in folder.glob(pattern))
    from ser.identity import md5_of

    return Recogniser(rate, hear, f"transformers:{language}:{md5_of(*files)}")


def _network(transformers: Any, folder: Path) -> "tuple[bool, Any]":
    """Whether it is a CTC network; and the network, in float32 on the CPU."""
    import torch
    from transformers.models.auto import modeling_auto as auto

    config = read_config(transformers, folder)
    name = (config.architectures or [config.model_type])[0]
    is_ctc = name in auto.MODEL_FOR_CTC_MAPPING_NAMES.values()
    known = is_ctc or (config.is_encoder_decoder and name in auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES.values())
    if not known:  # a language model that hears needs a prompt besides
        raise UserError(f"{folder}: {name}: not a recogniser; give one such as Whisper or Wav2Vec2ForCTC")
    kind = transformers.AutoModelForCTC if is_ctc else transformers.AutoModelForSpeechSeq2Seq
    try:
        network, report = kind.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **LOCAL
        )
    except Exception as error:  # damaged weights, or weights of another network
        raise UserError(f"{folder}: its weights cannot be loaded ({reason(error)}); fetch it again") from None
    refuse_missing(folder, report["missing_keys"])
    return is_ctc, network


def _languages(network: Any) -> set[str]:
    """The codes of the languages that a multilingual Whisper can be told; none of another network."""
    tokens = getattr(getattr(network, "generation_config", None), "lang_to_id", None) or {}
    return {token.strip("<|>") for token in tokens}
