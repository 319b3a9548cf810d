"""Make a small Whisper encoder with random weights, for the recipe egs/mini and for tests: the same on every machine.

Its states say little more than the log-mel spectrogram does. An encoder that is there already is kept.
"""

import argparse
import json
from pathlib import Path

from ser import cli
from ser.encoders import RATE, load
from ser.files import whole

CONFIG = {
    "model_type": "whisper", "d_model": 16, "encoder_layers": 2, "num_hidden_layers": 2, "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "num_mel_bins": 80, "max_source_positions": 1500,
}  # fmt: skip
PREPROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80, "sampling_rate": RATE, "hop_length": 160,
    "chunk_length": 30, "n_fft": 400, "padding_value": 0.0,
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.tiny_encoder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write it to")
    args = parser.parse_args(argv)
    if (args.folder / "model.safetensors").exists():
        print(f"{args.folder}: exists already")
    else:
        make(args.folder)
        print(f"{args.folder}: a tiny encoder with random weights")


def make(folder: Path) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors."""
    import numpy as np
    import safetensors.numpy
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    for name, content in (("config.json", CONFIG), ("preprocessor_config.json", PREPROCESSOR)):
        with whole(folder / name) as stream:
            json.dump(content, stream)
    rng, weights = np.random.default_rng(0), {}
    for name, tensor in WhisperEncoder(WhisperConfig(**CONFIG)).state_dict().items():
        drawn = rng.random(tuple(tensor.shape), np.float32) * 2 - 1  # the same bytes everywhere, unlike torch's normal
        reach = np.float32(max(drawn[0].size, 1) ** -0.5) if drawn.ndim > 1 else np.float32(0.1)
        is_scale = name.endswith("layer_norm.weight")
        weights[f"model.encoder.{name}"] = drawn * reach + np.float32(is_scale)
    with whole(folder / "model.safetensors", "wb") as stream:
        stream.write(safetensors.numpy.save(weights))
    load(folder)


if __name__ == "__main__":
    cli.run(main)
