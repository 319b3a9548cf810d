"""Overhead of a run besides its epochs: with one process per run, and with all runs in one process.

    egs/mini/run.sh --stop-stage 2; . ./path.sh; python tests/benchmarks/runs.py egs/mini

Prepares runs of mini's network on the honest folds in a temporary folder, and trains them both ways.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ser.config import read_protocol, read_system
from ser.provenance import provenance
from ser.runs import Run, write_run

os.chdir(sys.argv[1])
system = read_system("conf/sherman/cnn4_blstm_attention_small.yaml")
protocol = read_protocol("conf/protocols/honest.yaml")
trainer = [sys.executable, "-m", "ser.train", "--num-threads", "1"]

with tempfile.TemporaryDirectory() as place:
    for way in ("a process for each run", "one process for all runs"):
        folders = [Path(place, way, f"fold{fold}") for fold in range(1, 7)]
        for fold, folder in enumerate(folders, 1):
            folds, data, dump = Path("data/folds/honest"), Path("data/all"), Path("dump")
            write_run(Run(folder, "mini", system, protocol, fold, 1, data, folds, dump, provenance("a benchmark")))
        runs = Path(place, way, "runs.list")
        runs.write_text("".join(f"{folder}\n" for folder in folders))
        commands = [[*trainer, "--list", runs]] if "one" in way else [[*trainer, folder] for folder in folders]
        began = time.monotonic()
        for command in commands:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.monotonic() - began
        logs = [(folder / "epochs.jsonl").read_text().splitlines() for folder in folders]
        epochs = sum(json.loads(line)["seconds"] for log in logs for line in log)
        overhead = (wall - epochs) / len(folders)
        print(
            f"{way}: {wall:.1f} s, of these {epochs:.1f} s in epochs: {overhead:.2f} s of overhead per run, {overhead / 0.6:.1f} % of a minute"
        )
