"""Stage 2: compute each distinct feature of some systems once, in parallel jobs.

Writes DUMP/<feature>/feats.scp and utt2num_frames, as Kaldi does; utt2md5, the checksums of the recordings; and
feature.yaml, with the settings and the identity of the code. A folder DUMP/<feature>-<noise> is added for each noise
that a system trains on or a protocol tests with. Features that already exist for the same recordings, settings and
code are kept; all others are computed again.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser import audio, cli
from ser.cli import UserError
from ser.datadir import compute_missing, read_recordings, read_table, write_table
from ser.files import alone
from ser.jobs import job_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np

    from ser.config import System
    from ser.extract_many import Recording
    from ser.settings import FeatureConfig

BATCH = 32  # recordings that a GPU encodes together


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.dump_features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--systems", nargs="+", default=[], metavar="YAML", help="system files whose features to compute"
    )
    parser.add_argument(
        "--protocols",
        nargs="*",
        default=[],
        metavar="YAML",
        help="protocol files, for the noise of their test sets",
    )
    parser.add_argument("--nj", type=int, default=1, help="number of parallel jobs (default 1)")
    parser.add_argument("--cmd", default="run.py", help="job runner and its options (default run.py)")
    parser.add_argument(
        "--job",
        type=int,
        help="run one of the jobs prepared by a call with --systems; DUMP is then the folder of one feature",
    )
    cli.add_device(parser)
    cli.add_allow_pipes(parser)
    parser.add_argument("data", type=Path, metavar="DATA", help="data directory")
    parser.add_argument("dump", type=Path, metavar="DUMP", help="folder of all features")
    args = parser.parse_args(argv)
    if args.nj < 1:
        parser.error(f"--nj {args.nj}: must be 1 or more")
    if args.job:
        dump_part(args.dump, args.job, args.device, args.allow_pipes)
        return

    from ser.config import feature_name, read_protocol, read_system

    systems = [read_system(path) for path in args.systems]
    tests = [read_protocol(path).noise for path in args.protocols]
    fetch_encoders(systems)
    wanted = {
        feature_name(system.feature, noise): (system.feature, noise)
        for system in systems
        for noise in (None, *system.augment, *tests)
    }
    for name, (feature, noise) in wanted.items():
        with alone(args.dump / f".{name}.lock", str(args.dump / name), wait=True):
            dump(args.data, args.dump / name, feature, noise, args.nj, args.cmd, args.device, args.allow_pipes)


def fetch_encoders(systems: "Iterable[System]") -> None:
    """Download the pretrained encoders that are not here yet: jobs, those of training too, may have no network."""
    parts: list[Any] = [part for system in systems for part in (system.feature, system.model)]
    for model, revision in {(part.model, part.revision) for part in parts if hasattr(part, "weights")}:
        from ser.encoders import find

        find(model, revision)


def dump(
    data: Path,
    folder: Path,
    feature: "FeatureConfig",
    noise: str | None,
    nj: int,
    cmd: str,
    device: str,
    allow_pipes: bool,
) -> None:
    """Compute one feature, of the recordings with or without noise, through the job runner."""
    import yaml

    from ser.config import read_yaml, without_parts
    from ser.files import whole
    from ser.runs import feature_sources

    wavs = read_recordings(data / "wav.scp", allow_pipes, "ser.dump_features")
    compute_missing(data, ["utt2md5"], allow_pipes, "ser.dump_features")
    md5s = read_table(data / "utt2md5", wavs)
    made = {**without_parts(feature), "noise": noise, "code": dict(feature_sources(feature))}
    reason = why_again(folder, made, {utt: md5s[utt] for utt in wavs})
    if not reason:
        print(f"{folder}: all {len(wavs)} utterances are up to date")
        return
    durations = read_table(data / "utt2dur", wavs)
    try:
        longest_first = sorted(wavs, key=lambda utt: (-float(durations[utt]), utt))
    except ValueError as error:
        raise UserError(f"{data / 'utt2dur'}: {error}; run stage 0 again") from None
    if (folder / "feats.scp").exists():
        print(f"{folder}: computed again: {reason}")
        (folder / "feats.scp").unlink()  # it refers to archives that are about to be replaced
    if not (folder / "feature.yaml").exists() or read_yaml(folder / "feature.yaml") != made:
        for done in folder.glob("split*/frames.*"):
            done.unlink()
        with whole(folder / "feature.yaml") as stream:
            yaml.safe_dump(made, stream)
    nj = min(nj, len(wavs))
    parts = folder / f"split{nj}"
    for number in range(1, nj + 1):  # distributed by length, so that the jobs take equally long
        done = parts / f"frames.{number}"  # marks the job as complete
        if done.exists() and gone(read_table(parts / f"feats.{number}.scp")):
            done.unlink()
        for name, table in ((f"wav.{number}.scp", wavs), (f"utt2md5.{number}", md5s)):
            part = {utt: table[utt] for utt in longest_first[number - 1 :: nj]}
            if not (parts / name).exists() or read_table(parts / name) != part:
                done.unlink(missing_ok=True)
                write_table(parts / name, part)

    name_of_number = job_name(sys.executable, str(data), str(folder))
    job = [
        sys.executable,
        "-m",
        "ser.dump_features",
        "--job",
        name_of_number,
        "--device",
        device,
        *[cli.ALLOW_PIPES] * allow_pipes,
        str(data),
        str(parts),
    ]
    log = str(folder / "log" / f"dump.{name_of_number}.log")
    command = [*cmd.split(), f"{name_of_number}=1:{nj}", log, *job]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"{folder}: a job failed; see its log, fix the cause and run the same command again")

    index: dict[str, str] = {}
    frames: dict[str, str] = {}
    for number in range(1, nj + 1):
        index |= read_table(parts / f"feats.{number}.scp")
        frames |= read_table(parts / f"frames.{number}")
    write_table(folder / "utt2num_frames", frames)
    write_table(folder / "utt2md5", {utt: md5s[utt] for utt in wavs})
    write_table(folder / "feats.scp", index)  # last: marks the folder as complete
    print(f"{folder}: {len(index)} utterances")


def why_again(folder: Path, made: Mapping[str, Any], md5s: Mapping[str, str]) -> str:
    """Why the features in a folder have to be computed again; "" if they are up to date. made: settings and code, as in
    feature.yaml; md5s: checksums of the recordings."""
    from ser.config import read_yaml
    from ser.runs import and_more, other_modules

    if not all((folder / name).exists() for name in ("feats.scp", "utt2md5", "feature.yaml")):
        return "incomplete, or written by an older version"
    index, there = read_table(folder / "feats.scp"), read_table(folder / "utt2md5")
    before = read_yaml(folder / "feature.yaml")
    changed = [utt for utt in md5s.keys() | there.keys() if md5s.get(utt) != there.get(utt)]
    code = other_modules(before, "code", made["code"])
    if code:
        return f"{code} changed"
    if before != made:
        return "the settings changed"
    if changed or index.keys() != md5s.keys():
        return f"the recordings changed ({min(changed, default='feats.scp')}{and_more(changed)})"
    return gone(index)


def gone(index: Mapping[str, str]) -> str:
    """An archive of the index that is missing, or ends before its last utterance starts; "" if there is none."""
    ends: dict[str, int] = {}
    for place in index.values():
        ark, _, offset = place.rpartition(":")
        ends[ark] = max(ends.get(ark, 0), int(offset) if offset.isdecimal() else 0)
    for ark, end in ends.items():
        if not Path(ark).is_file() or Path(ark).stat().st_size <= end:
            return f"{ark} is missing or truncated"
    return ""


def dump_part(parts: Path, job: int, device: str, allow_pipes: bool) -> None:
    """Compute the features of one job's utterances."""
    from ser.archive import write_archive
    from ser.config import check, load_kind, read_yaml
    from ser.runs import feature_sources

    if (parts / f"frames.{job}").exists():  # written last: this job is complete
        return
    settings = read_yaml(parts.parent / "feature.yaml")
    module = load_kind("feature", settings.pop("kind"), parts.parent / "feature.yaml")
    noise = settings.pop("noise")
    code = settings.pop("code")
    config = check(module.Config, settings, parts.parent / "feature.yaml")
    if code != feature_sources(config):
        raise UserError(f"{parts.parent}: the code changed after the job was prepared; run stage 2 again")
    scp = parts / f"wav.{job}.scp"
    wavs = read_recordings(scp, allow_pipes, "ser.dump_features")
    md5s = read_table(parts / f"utt2md5.{job}", wavs)

    def read(utt: str) -> "Recording":
        samples, rate = audio.read(audio.recording(wavs[utt], f"{scp}: {utt}"))
        if audio.md5(samples) != md5s[utt]:
            raise UserError(f"{wavs[utt]}: {utt} changed after utt2md5 was written; run stages 0 and 1 again")
        return utt, samples, rate

    on_gpu = False
    if hasattr(module, "extract_many"):
        from ser import networks

        on_gpu = networks.device(device).type == "cuda"
    frames = write_archive(parts / f"feats.{job}.ark", matrices(wavs, read, config, noise, on_gpu))
    write_table(parts / f"frames.{job}", {utt: str(n) for utt, n in frames.items()})


def matrices(
    wavs: Mapping[str, str],
    read: "Callable[[str], Recording]",
    config: "FeatureConfig",
    noise: str | None,
    on_gpu: bool,
) -> "Iterator[tuple[str, np.ndarray]]":
    """Each utterance with its frames. wavs: {utt: recording}, longest first; on a GPU some of them go together."""
    from tqdm import tqdm

    from ser.extract import extract
    from ser.extract_many import extract_many

    def one_by_one(recordings: "Iterable[Recording]") -> "Iterator[np.ndarray]":
        for utt, samples, rate in recordings:
            try:
                yield extract(samples, rate, config, noise, utt)
            except UserError as error:  # the feature cannot be computed from these samples
                remedy = "" if "; " in str(error) else "; leave out the recording"
                raise UserError(f"{wavs[utt]}: {utt}: {error}{remedy}") from None

    def together(recordings: "list[Recording]") -> "Iterable[np.ndarray]":
        try:
            return extract_many(recordings, config, noise, "cuda")
        except UserError:
            return one_by_one(recordings)  # which tells of which recording

    utts, size = list(wavs), BATCH if on_gpu else 1
    with tqdm(desc="features", total=len(utts), disable=None) as bar:
        for start in range(0, len(utts), size):
            some = utts[start : start + size]
            recordings = [read(utt) for utt in some]
            yield from zip(some, together(recordings) if on_gpu else one_by_one(recordings), strict=True)
            bar.update(len(some))


if __name__ == "__main__":
    cli.run(main)
