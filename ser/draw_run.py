"""Stage 6: draw what needs a run's trained network: how it sets the classes apart, and what it attends to.

Call it in the recipe's folder. For each run, a folder of exp/ in which a network's training has ended, it
writes figures/<system>_<protocol>_tsne.png and _tsne_speakers.png, the same points by class and by speaker, and,
where the network attends, _attention.png, and to an input beside frames _<input>.png (_chosen.png with --utts), each
with its numbers as text beside it. Of two runs of a system under a protocol the last one's stay. Where results/ has
other scores of that name than this run's, as those that came with the repository, the figures go to figures/own/.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ser import audio, cli
from ser.cli import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from ser.batches import Batch
    from ser.folds import Fold
    from ser.runs import Run

Weights = Sequence["np.ndarray"]
QUIET = -40  # dB: a frame so far below its utterance's loudest is silence


@dataclass(frozen=True)
class Seen:
    """What the network made of N utterances. utts: ids; true and predicted (N,): class numbers.

    frames: N matrices (T, D), as it takes them in. vectors (N, H): what its last layer takes in. weights:
    of each attention N arrays (T,), the frames' weights, and even: the same if it weighed all its steps
    alike; both empty where there is no attention. 1 is a frame's share if all of all attentions are alike.
    beside: of each input beside frames that it attends to, as words, the same of its M pieces: N arrays (M,), which
    sum to 1; padding may follow.
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
    """Draw the figures of one run. chosen: utterances in which to draw the attention; none: examples."""
    from ser.reading import read_run_fold
    from ser.runs import read_run

    run = read_run(folder)
    if run.system.learner != "network":
        raise UserError(f"{folder}: no network, and only networks are drawn; leave it out")
    if not run.is_done:
        raise UserError(f"{folder}: not done; run stage 4")
    run.refuse_changes(but=["trainer"])
    fold = read_run_fold(run)
    if len(fold.test) < 4:
        raise UserError(f"{folder}: {len(fold.test)} test utterances, and t-SNE needs 4; leave it out")
    for utt in chosen:
        if utt not in fold.test:
            raise UserError(
                f"--utts {utt}: not a test utterance of {folder}; {run.folds}/fold{run.fold}/test has those"
            )
    seen = see(run, fold, device)
    draw_planes(run, fold.classes, seen)
    rows = list(map(seen.utts.index, chosen)) or examples(seen.true, seen.predicted)
    if seen.weights and hasattr(run.feature, "heard"):  # else its frames do not follow time
        draw_attention(run, fold.classes, seen, rows, bool(chosen))
    for name in seen.beside:
        draw_input(run, name, fold.classes, seen, rows, bool(chosen))


def see(run: "Run", fold: "Fold", device: str) -> Seen:
    """Put the test utterances of the fold through the run's network."""
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
        if vectors.ndim == 3:  # where each frame is scored
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
                {name: {one: of_all[row] for one, of_all in both.items()} for name, both in beside.items()},
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
    """Weights of each utterance by name -> for each name those of all utterances."""
    return {name: [of_utt[name] for of_utt in weights] for name in weights[0]}


def frame_weights(
    network: "nn.Module", batch: "Batch", precision: str
) -> "tuple[dict[str, np.ndarray], dict[str, np.ndarray]]":
    """What each attention gives a batch's frames (B, T), and what it would if it weighed all its steps alike, as
    Seen has them. ser/models/__init__.py says what is asked of a model."""
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
    """What each attention gives the pieces (B, M) of the inputs beside a batch's frames, by the input's name."""
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
    """Draw the utterances as points: as they are before the network, and behind it."""
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
    """Draw where the network attends in some utterances, chosen ones or examples; count how it heeds silence."""
    from ser import figures
    from ser.datadir import read_table

    config = run.system.feature
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
    """Draw to which pieces of an input, as words, the network attends in some utterances, chosen ones or examples."""
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
    """Where to draw; beside the figures of a table that shows another run's scores."""
    from ser.scores import read_scores

    shown = Path("results", run.system.name, run.protocol.name, f"{run.folder.name}.txt")
    is_own = shown.exists() and read_scores(shown).about.get("model") != run.model
    name = f"{run.system.name}_{run.protocol.name}_{name}{'_chosen' * chosen}.png"
    return Path("figures", "own" * is_own, name)


def which(chosen: bool) -> str:
    """What is drawn, in words."""
    return "chosen utterances" if chosen else "an example of each class"


def title_of(run: "Run") -> str:
    """The run, and the weights that it was drawn with, by which ser.report knows whether a table shows its scores."""
    name = f"{run.system.name}, protocol {run.protocol.name}, fold {run.fold}, seed {run.seed}"
    return f"{name}, model {run.model[:8]}"


def points(matrices: "Sequence[np.ndarray]") -> "np.ndarray":
    """Utterances (T, D) as points of one space: all their values where all are of one length, else the mean
    and deviation of each dimension over the frames."""
    import numpy as np

    if len({len(matrix) for matrix in matrices}) == 1:
        return np.stack([matrix.ravel() for matrix in matrices])
    return np.stack([np.concatenate((matrix.mean(0), matrix.std(0))) for matrix in matrices])


def to_plane(space: "np.ndarray") -> "np.ndarray":
    """t-SNE (N, 2) of points (N, D), the same at every call. More than 50 dimensions are reduced to as many
    principal components first: quicker, and less noise (van der Maaten and Hinton, 2008, take 30)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # threads add up in any order, and t-SNE makes much of the last bit
        reduced = PCA(min(50, *space.shape), svd_solver="full").fit_transform(space)
        start = "pca" if reduced.std() else "random"  # where all points are one, "pca" has no scale
        perplexity = min(30, (len(space) - 1) / 3)
        return TSNE(perplexity=perplexity, init=start, random_state=0).fit_transform(reduced)


def neighbour_share(space: "np.ndarray", true: "np.ndarray") -> float:
    """Share of points (N, D) whose nearest neighbour is of their class. true: (N,) class numbers."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=1).fit(space).kneighbors(return_distance=False)[:, 0]
    return float((true[nearest] == true).mean())


def examples(true: "np.ndarray", predicted: "np.ndarray") -> list[int]:
    """The first place of each class that is there at which it is predicted; where it never is, its first."""
    return [
        min((true == number).nonzero()[0], key=lambda place: (predicted[place] != number, place))
        for number in sorted(set(true))
    ]


def hear(run: "Run", utt: str, recordings: Mapping[str, str], feature: ModuleType) -> "np.ndarray":
    """The samples (N,) of a test utterance that its features were made of. recordings: wav.scp."""
    from ser import noise

    if audio.is_pipe(recordings[utt]):
        raise UserError(
            f"{run.data / 'wav.scp'}: {utt} is a shell command, {recordings[utt]!r}; put a file in its place"
        )
    samples, _ = audio.read(recordings[utt], run.system.feature.sample_rate)
    if run.protocol.noise:
        samples = noise.add(samples, run.protocol.noise, utt)
    return feature.heard(samples, run.system.feature)


def is_quiet(samples: "np.ndarray", hop: int, n_frames: int) -> "np.ndarray":
    """Which frames (n_frames,) are silence, by the root mean square of the `hop` samples around the middle of
    each; frame t's is sample t * hop."""
    import numpy as np

    squares = np.pad(np.square(samples, dtype=np.float64), (hop // 2, hop))[: n_frames * hop]
    power = squares.reshape(n_frames, hop).mean(1)
    return power < power.max() * 10 ** (QUIET / 10)


def describe_silence(weights: Weights, even: Weights, quiet: Weights) -> list[str]:
    """Lines that compare the mean weights in silence and elsewhere, of all utterances together, and what they
    would be if attention did not follow what is said. All three: (T,) of each utterance; a weight of 1 is an even
    share."""
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
    """The mean weight of the first frame, of the second, ... (T of the longest,); of the utterances that are so
    long. weights: (T,) of each utterance."""
    import numpy as np

    total, count = np.zeros((2, max(map(len, weights))))
    for one in weights:
        total[: len(one)] += one
        count[: len(one)] += 1
    return total / count


def silence_and_rest(weights: Weights, quiet: Weights) -> tuple[float, float]:
    """Mean weights of the quiet frames and of the others. weights and quiet: (T,) of each utterance."""
    import numpy as np

    of_all, is_silence = np.concatenate(weights), np.concatenate(quiet)
    return float(of_all[is_silence].mean()), float(of_all[~is_silence].mean())


if __name__ == "__main__":
    cli.run(main)
