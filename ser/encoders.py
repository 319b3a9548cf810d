"""Pretrained speech encoders of transformers: find one, and run it on padded batches of samples.

As a command: print what a system file must say of an encoder, with the checksum that names its weights.

MODEL is a folder in Hugging Face's layout (config.json, model.safetensors), or a name on the hub. A name is looked for
in tools/models/ first, then in the hub's cache, and then downloaded.
"""

import argparse
import itertools
import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ser import cli
from ser.cli import UserError

if TYPE_CHECKING:
    from torch import Tensor

MODELS = Path(__file__).parent.parent / "tools" / "models"
RATE = 16_000  # Hz: that of every encoder here
LONGEST = 30.0  # seconds: what Whisper takes
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FILES = ["config.json", "preprocessor_config.json", "model*.safetensors", INDEX]
KNOWN = ["whisper", "wav2vec2", "hubert", "wavlm", "data2vec-audio", "wav2vec2-bert"]  # values of model_type
WHISPER_POSITIONS = 1500  # of 20 ms
# what the shapes of the weights do not tell of a network; those that a model lacks are left out
SHAPE = """
    model_type num_attention_heads encoder_attention_heads hidden_act activation_function feat_extract_activation
    feat_extract_norm do_stable_layer_norm layer_norm_eps conv_kernel conv_stride num_conv_pos_embeddings
    num_conv_pos_embedding_groups scale_embedding num_buckets max_bucket_distance position_embeddings_type
    left_max_position_embeddings right_max_position_embeddings conv_depthwise_kernel_size
""".split()
DROPOUT = "dropout attention_dropout activation_dropout hidden_dropout feat_proj_dropout conformer_conv_dropout".split()
INPUT = ["do_normalize", "feature_size", "sampling_rate", "hop_length", "n_fft", "num_mel_bins", "stride"]

# never run code that comes with a model
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class Pretrained(Protocol):
    """Settings that name an encoder. model: folder, or name on the hub. revision: branch, tag or commit on the hub.
    weights: their checksum, which ser.encoding.Encoder demands."""

    @property
    def model(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def weights(self) -> str: ...


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.encoders", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--revision", metavar="NAME", help="branch, tag or commit on the hub (default: its main branch)"
    )
    parser.add_argument("model", metavar="MODEL", help="folder, or name on the hub, such as openai/whisper-tiny.en")
    args = parser.parse_args(argv)
    folder = find(args.model, args.revision)
    network, extractor = load(folder)
    width, depth = sizes(network.config)
    print(f"# {folder}: {network.config.model_type}, layers 0 to {depth}, {width} values each")
    print(f"model: {args.model}")
    if args.revision:
        print(f"revision: {args.revision}")
    print(f"weights: {checksum(folder, network.config, extractor)}")


def find(model: str, revision: str | None = None, files: Sequence[str] = FILES) -> Path:
    """The folder of a model: tools/models/MODEL, the folder MODEL, or the hub's copy, downloaded if need be.

    files: patterns of the files to download. Raises UserError if it is found nowhere, or has no weights in safetensors.
    """
    for folder in (MODELS / model, Path(model)):
        if folder.is_dir():
            return refuse_incomplete(folder)
    quiet_transformers()  # which brings huggingface_hub
    import huggingface_hub

    try:
        there = huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=list(files))
        return refuse_incomplete(Path(there))
    except UserError:
        raise
    except Exception as error:  # the hub reports a network that is down, and a wrong name, in many ways
        raise UserError(
            f"{model}: not a folder here or in {MODELS}, and the hub does not give it ({reason(error)}); link a "
            f"folder that has config.json and {WEIGHTS} to {MODELS / model}"
        ) from None


def refuse_incomplete(folder: Path) -> Path:
    """The folder, if it has config.json and weights in safetensors; otherwise raises UserError."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json; give a folder in Hugging Face's layout")
    if not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".h5", ".msgpack"))
        why = f"; {others[0]} is not read, since loading it can run code from it" if others else ""
        raise UserError(
            f"{folder}: no weights in safetensors{why}; give a folder or a `revision` of the hub that has them"
        )
    return folder


def load(folder: Path) -> tuple[Any, Any]:
    """The encoder of a model in evaluation mode, float32, on the CPU; and transformers' extractor of its input.

    Raises UserError if it is not a speech encoder, or if weights are missing.
    """
    transformers = quiet_transformers()
    config = read_config(transformers, folder)
    if config.model_type not in KNOWN:
        raise UserError(f"{folder}: {config.model_type}: not an encoder that is known here; one of {', '.join(KNOWN)}")
    if config.model_type == "whisper" and config.max_source_positions != WHISPER_POSITIONS:
        raise UserError(f"{folder}: has {config.max_source_positions} positions; only Whisper's 1500 are known here")
    try:
        network, missing = (_whisper if config.model_type == "whisper" else _other)(transformers, folder, config)
    except UserError:
        raise
    except Exception as error:  # damaged weights, or weights of another network
        raise UserError(f"{folder}: its weights cannot be loaded ({reason(error)}); fetch it again") from None
    refuse_missing(folder, missing)
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **LOCAL)
    except Exception as error:
        path = folder / "preprocessor_config.json"
        raise UserError(f"{path}: missing, or not read by transformers ({reason(error)}); fetch it again") from None
    if extractor.sampling_rate != RATE:
        raise UserError(f"{folder}: takes {extractor.sampling_rate} Hz; only encoders of {RATE} Hz are known here")
    return network.eval(), extractor


def _whisper(transformers: Any, folder: Path, config: Any) -> tuple[Any, Iterable[str]]:
    """The encoder of Whisper alone, without the decoder, and the names of weights that are missing."""
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    network = WhisperEncoder(config)
    missing, _ = network.load_state_dict(tensors(folder, "whisper"), strict=False)
    return network, missing


def _other(transformers: Any, folder: Path, config: Any) -> tuple[Any, Iterable[str]]:
    """Any other encoder, and the names of weights that are missing."""
    import torch

    network, report = transformers.AutoModel.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **LOCAL
    )
    return network, [*report["missing_keys"], *report.get("mismatched_keys", [])]


def tensors(folder: Path, model_type: str) -> "dict[str, Tensor]":
    """All tensors of a model, as float32; of Whisper those of the encoder, by the encoder's own
    names."""
    import safetensors.torch

    found = {
        name: tensor.float()
        for path in weight_files(folder)
        for name, tensor in safetensors.torch.load_file(path).items()
    }
    if model_type != "whisper":
        return found
    own = {name.removeprefix("model."): tensor for name, tensor in found.items()}
    return {name.removeprefix("encoder."): tensor for name, tensor in own.items() if name.startswith("encoder.")}


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers takes a model's weights from: one, or the parts that an index names. Raises UserError
    if the index is damaged."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    try:
        names = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
        return [folder / name for name in sorted(names)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{folder / INDEX}: missing or damaged; fetch it again") from None


def checksum(folder: Path, config: Any, extractor: Any) -> str:
    """MD5 of an encoder's weights as float32, and of all settings that its output depends on. The same weights have the
    same sum in float16 and float32, and with or without Whisper's decoder."""
    from ser.tensors import checksum as checksum_of

    dropout = {name: value for name in DROPOUT if (value := getattr(config, name, 0))}
    notes = {
        "network": {name: getattr(config, name) for name in SHAPE if getattr(config, name, None) is not None},
        **({"dropout": dropout} if dropout else {}),  # for training
        "input": {name: getattr(extractor, name) for name in INPUT if getattr(extractor, name, None) is not None},
    }
    return checksum_of(tensors(folder, config.model_type), notes)


def sizes(config: Any) -> tuple[int, int]:
    """Values per frame, and number of layers, of an encoder."""
    return int(config.hidden_size), int(config.num_hidden_layers)


def pieces(n_samples: int, longest: float) -> list[slice]:
    """Cut an utterance of more than `longest` seconds into as few pieces of about equal length as possible."""
    number = max(-(-n_samples // int(longest * RATE)), 1)
    ends = [round(n_samples * place / number) for place in range(number + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def read_config(transformers: Any, folder: Path) -> Any:
    """A model's settings, by transformers. Raises UserError if they are damaged."""
    try:
        return transformers.AutoConfig.from_pretrained(folder, **LOCAL)
    except Exception as error:  # transformers reports a damaged or unknown configuration in many ways
        raise UserError(f"{folder / 'config.json'}: not read by transformers ({reason(error)})") from None


def refuse_missing(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError if the weights of a model lack some of its tensors."""
    missing = sorted(name for name in names if "masked_spec_embed" not in name)  # for training alone
    if missing:
        raise UserError(f"{folder}: has no weights for {missing[0]} and {len(missing) - 1} more; give a whole model")


def reason(error: Exception) -> str:
    """What an error says, in one line that is not too long."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def quiet_transformers() -> Any:
    """The package transformers, without progress bars or reports of weights that are not used; those that are missing
    are an error here. Raises UserError if it is not installed."""
    try:
        import transformers
    except ImportError:
        raise UserError(
            "pretrained models need transformers, which is not installed; run: pip install transformers"
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")  # of transformers' own WavLM
    return transformers


if __name__ == "__main__":
    cli.run(main)
