"""Stage 6: draw what a run's trained network does: how it separates the classes, and what it attends to.

Call it in the recipe's folder. For each run, a folder in exp/ with a trained network, it writes
figures/<system>_<protocol>_tsne.png and _tsne_speakers.png, the same points by class and by speaker. If the network has
attention, it writes _attention.png, and for attention to an input beside frames _<input>.png (_chosen.png with --utts).
The numbers of each figure are in a text file beside it. The last of several runs of a system under a protocol replaces
the figures of the others. If results/ has other scores under the run's name, such as those that came with the
repository, the figures go to figures/own/.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from ser import audio, cli
from ser.cli import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from ser.batches import Batch
    from ser.folds import Fold
    from ser.runs import Run
    from ser.settings import FramedConfig

Weights = Sequence["np.ndarray"]
QUIET = -40  # dB: frames this far below the loudest of their utterance are silence


@dataclass(frozen=True)
class Seen:
    """The network's outputs for N utterances. utts: ids; true and predicted (N,): class numbers.

    frames: N matrices (T, D), the network's input. vectors (N, H): the input of its last layer. weights: for each
    attention N arrays (T,), the weights of frames; even: the same if the attention weighted all its steps equally; both
    empty without attention. A weight of 1 is an equal share. beside: for each input beside frames that the network
    attends to, such as words, the weights of its M pieces: N arrays (M,), which sum to 1; padding may follow.
    """

    utts: list[str]
    true: "np.ndarray"
    predicted: "np.ndarray"
    frames: "list[np.ndarray]"
    vectors: "np.ndarray"
    weights: "dict[str, list[np.ndarray]]"
    even: "dict[str, list[np.ndarray]]"
    beside: "dict[str, dict[str, list[np.ndarray]]]"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.draw_run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_device(parser)
    parser.add_argument(
        "--utts",
        nargs="+",
        metavar="UTT",
        default=[],
        help="test utterances in which to draw the attention (default: one of each class)",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder exp/<system>/<protocol>/<run>")
    args = parser.parse_args(argv)
    for folder in args.runs:
        draw(folder, args.device, args.utts)


def draw(folder: Path, device: str, chosen: Sequence[str]) -> None:
    """Draw the figures of one run. chosen: utterances in which to draw the attention; if empty, examples."""
    from ser.reading import read_run_fold
    from ser.runs import read_run

    run = read_run(folder)
    if run.system.learner != "network":
        raise UserError(f"{folder}: not a network, and only networks are drawn; leave it out")
    if not run.is_done:
        raise UserError(f"{folder}: not done; run stage 4")
    run.refuse_changes(ignore=["trainer"])
    fold = read_run_fold(run)
    if len(fold.test) < 4:
        raise UserError(f"{folder}: {len(fold.test)} test utterances, but t-SNE needs 4; leave it out")
    for utt in chosen:
        if utt not in fold.test:
            raise UserError(f"--utts {utt}: not a test utterance of {folder}; see {run.folds}/fold{run.fold}/test")
    seen = see(run, fold, device)
    draw_planes(run, fold.classes, seen)
    rows = list(map(seen.utts.index, chosen)) or examples(seen.true, seen.predicted)
    if seen.weights and hasattr(run.feature, "heard"):  # otherwise its frames are not in time order
        draw_attention(run, fold.classes, seen, rows, bool(chosen))
    for name in seen.beside:
        draw_input(run, name, fold.classes, seen, rows, bool(chosen))


def see(run: "Run", fold: "Fold", device: str) -> Seen:
    """Run the network on the test utterances of the fold."""
    import numpy as np
    import torch

    from ser import layers
    from ser.learners.network import load, settings_of
    from ser.reading import read_inputs

    inputs = read_inputs(run, fold)
    learned = load(run, device, inputs.sizes)
    network, precision = learned.network, settings_of(run).precision
    utts = sorted(fold.test)
    found: dict[str, list] = {}
    taken_in: list[torch.Tensor] = []
    network.output.register_forward_pre_hook(lambda layer, inputs: taken_in.append(inputs[0]))
    for batch, logs in learned.answers(inputs, utts):
        predicted, vectors = logs.argmax(1).tolist(), taken_in.pop().float().cpu()
        if vectors.ndim == 3:  # the network scores each frame
            vectors = layers.masked_mean(vectors, batch.lengths)
        with torch.inference_mode():
            both = frame_weights(network, batch, precision)
            beside = input_weights(run, network, batch, precision)
        for row, (utt, length) in enumerate(zip(batch.utts, batch.lengths, strict=True)):
            found[utt] = [
                predicted[row],
                vectors[row].numpy(),
                batch.frames[row, :length].numpy(),
                *({name: of_all[row, :length] for name, of_all in one.items()} for one in both),
                {name: {one: of_all[row] for one, of_all in weights.items()} for name, weights in beside.items()},
            ]
    predicted, vectors, frames, weights, even, besides = zip(*(found[utt] for utt in utts), strict=True)
    true = np.array([inputs.targets[utt] for utt in utts])
    return Seen(
        utts,
        true,
        np.array(predicted),
        list(frames),
        np.stack(vectors),
        by_name(weights),
        by_name(even),
        {name: by_name([of_utt[name] for of_utt in besides]) for name in besides[0]},
    )


def by_name(weights: "Sequence[Mapping[str, np.ndarray]]") -> "dict[str, list[np.ndarray]]":
    """Weights by name for each utterance -> for each name, the weights of all utterances."""
    return {name: [of_utt[name] for of_utt in weights] for name in weights[0]}


def frame_weights(
    network: "nn.Module", batch: "Batch", precision: str
) -> "tuple[dict[str, np.ndarray], dict[str, np.ndarray]]":
    """The weight that each attention gives a batch's frames (B, T), and the weight if it weighted all its steps
    equally, as in Seen. ser/models/__init__.py says what a model must define for this."""
    import torch

    if not hasattr(network, "frame_weights"):
        return {}, {}
    place = next(network.parameters()).device
    frames, lengths = batch.frames.to(place), batch.lengths.to(place)
    with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bfloat16"):
        both = [network.frame_weights(frames, lengths, even=even) for even in (False, True)]
    n_frames = batch.lengths.numpy()[:, None]
    weights, even = ({name: len(one) * n_frames * of_all.cpu().numpy() for name, of_all in one.items()} for one in both)
    return weights, even


def input_weights(
    run: "Run", network: "nn.Module", batch: "Batch", precision: str
) -> "dict[str, dict[str, np.ndarray]]":
    """The weight that each attention gives the pieces (B, M) of a batch's inputs beside frames, by name of the
    input."""
    import torch

    from ser import inputs

    place = next(network.parameters()).device
    given = {"frames": batch.frames, "lengths": batch.lengths, **batch.extras}
    given = {name: values.to(place) for name, values in given.items()}
    found = {}
    for name, module in inputs.of(run.system).items():
        method = getattr(network, getattr(module, "WEIGHTS", ""), None)
        if method:
            with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bfloat16"):
                found[name] = {one: of_all.cpu().numpy() for one, of_all in method(**given).items()}
    return {name: weights for name, weights in found.items() if weights}


def draw_planes(run: "Run", classes: Sequence[str], seen: Seen) -> None:
    """Draw the utterances as points, by their input features and by the network's last representation."""
    import numpy as np

    from ser import figures
    from ser.datadir import read_table

    spaces = {"input features": points(seen.frames), "output representation": seen.vectors}
    planes = {name: to_plane(space) for name, space in spaces.items()}
    utt2spk = read_table(run.data / "utt2spk", seen.utts)
    speakers, speaker = np.unique([utt2spk[utt] for utt in seen.utts], return_inverse=True)
    groupings = [
        ("class", seen.true, classes, "tsne"),
        ("speaker", speaker, speakers.tolist(), "tsne_speakers"),
    ]
    for kind, numbers, names, figure in groupings:
        both = [figures.Plane(name, planes[name], neighbour_share(space, numbers)) for name, space in spaces.items()]
        path = figure_path(run, figure)
        figures.planes(seen.utts, numbers, names, both, title_of(run), path, kind)
        print(path.resolve())


def draw_attention(run: "Run", classes: Sequence[str], seen: Seen, rows: Sequence[int], chosen: bool) -> None:
    """Draw where the network attends in some utterances, chosen ones or examples; report its weights in silence."""
    from ser import figures
    from ser.datadir import read_table

    config = cast("FramedConfig", run.system.feature)
    recordings = read_table(run.data / "wav.scp", seen.utts)
    drawn, quiet = {}, []
    for row, (utt, frames) in enumerate(zip(seen.utts, seen.frames, strict=True)):
        samples = hear(run, utt, recordings, run.feature)
        quiet.append(is_quiet(samples, config.hop_length, len(frames)))
        if row in rows:
            weights = {name: of_all[row] for name, of_all in seen.weights.items()}
            true, predicted = classes[seen.true[row]], classes[seen.predicted[row]]
            drawn[row] = figures.Example(utt, true, predicted, samples, weights)
    silence = [
        line.replace("weight", f"{name.replace('_', ' ')} weight", 1) if len(seen.weights) > 1 else line
        for name, weights in seen.weights.items()
        for line in describe_silence(weights, seen.even[name], quiet)
    ]
    path = figure_path(run, "attention", chosen)
    title = f"{title_of(run)}: attention in {which(chosen)}"
    figures.attention([drawn[row] for row in rows], config.sample_rate, config.hop_length, title, silence, path)
    print(f"{title_of(run)}: attention", *silence, path.resolve(), sep="\n")


def draw_input(run: "Run", name: str, classes: Sequence[str], seen: Seen, rows: Sequence[int], chosen: bool) -> None:
    """Draw which pieces of an input, such as words, the network attends to in chosen utterances or examples."""
    from ser import figures, inputs

    pieces = inputs.of(run.system)[name].pieces(run, [seen.utts[row] for row in rows])
    drawn = []
    for row in rows:
        utt = seen.utts[row]
        weights = {one: of_all[row][: len(pieces[utt])] for one, of_all in seen.beside[name].items()}
        true, predicted = classes[seen.true[row]], classes[seen.predicted[row]]
        drawn.append(figures.Sentence(utt, true, predicted, pieces[utt], weights))
    path = figure_path(run, name, chosen)
    figures.sentences(drawn, f"{title_of(run)}: attention to {name} in {which(chosen)}", path)
    print(path.resolve())


def figure_path(run: "Run", name: str, chosen: bool = False) -> Path:
    """The path of a figure; in figures/own/ if the table shows another run's scores."""
    from ser.scores import read_scores

    shown = Path("results", run.system.name, run.protocol.name, f"{run.folder.name}.txt")
    is_own = shown.exists() and read_scores(shown).about.get("model") != run.model
    name = f"{run.system.name}_{run.protocol.name}_{name}{'_chosen' * chosen}.png"
    return Path("figures", "own" * is_own, name)


def which(chosen: bool) -> str:
    """Which utterances are drawn, in words."""
    return "chosen utterances" if chosen else "an example of each class"


def title_of(run: "Run") -> str:
    """The run and the MD5 of its weights, from which ser.report knows whether a table shows its scores."""
    name = f"{run.system.name}, protocol {run.protocol.name}, fold {run.fold}, seed {run.seed}"
    return f"{name}, model {run.model[:8]}"


def points(matrices: "Sequence[np.ndarray]") -> "np.ndarray":
    """Utterances (T, D) as points in one space: all their values if all have the same length, otherwise the mean and
    deviation of each dimension over the frames."""
    import numpy as np

    if len({len(matrix) for matrix in matrices}) == 1:
        return np.stack([matrix.ravel() for matrix in matrices])
    return np.stack([np.concatenate((matrix.mean(0), matrix.std(0))) for matrix in matrices])


def to_plane(space: "np.ndarray") -> "np.ndarray":
    """t-SNE (N, 2) of points (N, D), deterministic. More than 50 dimensions are first reduced to 50 principal
    components, which is faster and less noisy (van der Maaten and Hinton, 2008, use 30)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # threads add in any order, and t-SNE amplifies differences in the last bit
        reduced = PCA(min(50, *space.shape), svd_solver="full").fit_transform(space)
        start = "pca" if reduced.std() else "random"  # if all points are the same, "pca" has no scale
        perplexity = min(30, (len(space) - 1) / 3)
        return TSNE(perplexity=perplexity, init=start, random_state=0).fit_transform(reduced)


def neighbour_share(space: "np.ndarray", true: "np.ndarray") -> float:
    """Share of points (N, D) whose nearest neighbour has the same class. true: (N,) class numbers."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=1).fit(space).kneighbors(return_distance=False)[:, 0]
    return float((true[nearest] == true).mean())


def examples(true: "np.ndarray", predicted: "np.ndarray") -> list[int]:
    """For each class that occurs, the index of its first correctly predicted utterance, or else of its first one."""
    return [
        min((true == number).nonzero()[0], key=lambda place: (predicted[place] != number, place))
        for number in sorted(set(true))
    ]


def hear(run: "Run", utt: str, recordings: Mapping[str, str], feature: ModuleType) -> "np.ndarray":
    """The samples (N,) from which a test utterance's features were computed. recordings: wav.scp."""
    from ser import noise

    if audio.is_pipe(recordings[utt]):
        raise UserError(
            f"{run.data / 'wav.scp'}: {utt} is a shell command, {recordings[utt]!r}; replace it with a file"
        )
    samples, _ = audio.read(recordings[utt], run.system.feature.sample_rate)
    if run.protocol.noise:
        samples = noise.add(samples, run.protocol.noise, utt)
    return feature.heard(samples, run.system.feature)


def is_quiet(samples: "np.ndarray", hop: int, n_frames: int) -> "np.ndarray":
    """Which frames (n_frames,) are silence, by the root mean square of the `hop` samples around each frame's centre,
    sample t * hop for frame t."""
    import numpy as np

    squares = np.pad(np.square(samples, dtype=np.float64), (hop // 2, hop))[: n_frames * hop]
    power = squares.reshape(n_frames, hop).mean(1)
    return power < power.max() * 10 ** (QUIET / 10)


def describe_silence(weights: Weights, even: Weights, quiet: Weights) -> list[str]:
    """Lines that compare the mean weights in silence and elsewhere, over all utterances, with those of an attention
    that ignores the content. Arguments: (T,) for each utterance; a weight of 1 is an equal share."""
    import numpy as np

    share = 100 * np.concatenate(quiet).mean()
    if not share:
        return [f"no frame of a test utterance is below {QUIET} dB of its loudest"]
    profile = mean_profile(weights)
    rows = {
        "": weights,
        " if all steps of the attention weighed the same": even,
        " if each utterance had the mean weights of all, frame by frame": [
            profile[: len(one)] * one.mean() / profile[: len(one)].mean() for one in weights
        ],
    }
    lines = [
        (
            f"mean weight of the frames below {QUIET} dB of their utterance's loudest ({share:.0f} % of the test "
            "utterances' frames), and of the others:"
        )
    ]
    for condition, of_all in rows.items():
        silence, rest = silence_and_rest(of_all, quiet)
        lines.append(f"{silence:.2f} {rest:.2f}{condition}")
    return lines


def mean_profile(weights: Weights) -> "np.ndarray":
    """The mean weight of the first frame, of the second, ... (T of the longest utterance,), each over the utterances
    that are long enough. weights: (T,) for each utterance."""
    import numpy as np

    total, count = np.zeros((2, max(map(len, weights))))
    for one in weights:
        total[: len(one)] += one
        count[: len(one)] += 1
    return total / count


def silence_and_rest(weights: Weights, quiet: Weights) -> tuple[float, float]:
    """Mean weights of the quiet frames and of the others. weights and quiet: (T,) for each utterance."""
    import numpy as np

    of_all, is_silence = np.concatenate(weights), np.concatenate(quiet)
    return float(of_all[is_silence].mean()), float(of_all[~is_silence].mean())


if __name__ == "__main__":
    cli.run(main)
