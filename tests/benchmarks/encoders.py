"""Speed of a frozen Whisper encoder, compared with plain transformers loops, one file at a time, on one core.

ours: ser.extract.extract, mean and deviation of all layers. plain: transformers' extractor and encoder as documented, on
30 s of padding, and the statistics of the utterance's frames; it is another function of the padding, so only its time
is compared. cropped: the loop that a good engineer would write to avoid the padding, with transformers' extractor
without padding and its layers on the first positions; its outputs must equal ours. Each recording is read and resampled
once, for all; all take turns; CPU time.

    cd egs/ravdess; . ./path.sh; python ../../tests/benchmarks/encoders.py data/all conf/pretrained/whisper_svm.yaml
"""

import argparse
import resource
import time

import numpy as np
import torch

from ser import audio
from ser.config import read_system
from ser.datadir import read_table
from ser.encoders import find
from ser.extract import extract


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="data directory")
    parser.add_argument("system", help="system file, with the statistics mean and deviation of all layers of a Whisper")
    parser.add_argument("--every", type=int, default=12, help="use every Nth utterance (default 12)")
    args = parser.parse_args()
    torch.set_num_threads(1)

    from transformers import WhisperFeatureExtractor, WhisperModel, logging

    config = read_system(args.system).feature
    folder = find(config.model)
    logging.set_verbosity_error()  # about the decoder, which is not used
    logging.disable_progress_bar()
    network = WhisperModel.from_pretrained(folder, dtype=torch.float32).encoder.eval()
    extractor = WhisperFeatureExtractor.from_pretrained(folder)

    def summed(states, n):
        used = torch.cat(states)[:, :n]
        return torch.stack([used.mean(1), used.std(1, unbiased=False)], 1).flatten()[None].numpy()

    def plain(samples):
        mel = extractor(samples, sampling_rate=16000, return_tensors="pt").input_features
        return summed(network(mel, output_hidden_states=True).hidden_states, (len(samples) // 160 + 1) // 2)

    def cropped(samples):
        mel = extractor(samples, sampling_rate=16000, return_tensors="pt", padding=False).input_features
        frames = torch.nn.functional.gelu(network.conv2(torch.nn.functional.gelu(network.conv1(mel)))).transpose(1, 2)
        states = [frames + network.embed_positions.weight[: frames.shape[1]]]
        for layer in network.layers:
            states.append(layer(states[-1], None))
        return summed([*states[:-1], network.layer_norm(states[-1])], frames.shape[1])

    ways = {"ours": lambda samples: extract(samples, 16000, config), "plain": plain, "cropped": cropped}
    spent, seconds, largest = dict.fromkeys(ways, 0.0), 0.0, 0.0
    with torch.inference_mode():
        for number, place in enumerate([*read_table(f"{args.data}/wav.scp").values()][:: args.every]):
            samples, _ = audio.read(place, 16000)
            found = {}
            for name, way in ways.items():
                started = time.process_time()
                found[name] = way(samples)
                if number:  # the first warms up
                    spent[name] += time.process_time() - started
            seconds += len(samples) / 16000 if number else 0
            largest = max(largest, float(np.abs(found["ours"] - found["cropped"]).max()))
    print(f"{seconds:.0f} s of speech; ours and cropped differ by at most {largest:.1e}")
    for name, used in spent.items():
        print(
            f"{name:8} {used:6.1f} CPU s, {seconds / used:5.1f} times real time, ours takes {spent['ours'] / used:.2f}"
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
