#!/usr/bin/env python3
"""Run a command, or an array of them, through SLURM, with a log each (the contract of Kaldi's slurm.pl).

usage: slurm.py [options] [JOB=1:N] LOG COMMAND [ARGUMENT...]

  slurm.py --mem 4G exp/log/train.log python -m ser.train --seed 1
  slurm.py --gpu 1 --max-jobs-run 8 JOB=1:20 exp/log/train.JOB.log python -m ser.train --job JOB runs.list

JOB (or any other name before =1:N that occurs in no path) is replaced by 1, 2, ... N in the log's name and
in the arguments. The command is run as it is: quotes, $ and | in its arguments have no special meaning. Its
output goes into the log. slurm.py waits for all jobs (`sbatch --array --wait`), and exits
with status 1 if one failed. Ctrl-C cancels them. The log, the command and the current folder
must be visible on every machine of the cluster.

options:
  --max-jobs-run N  at most N jobs of the array at a time (default: as many as SLURM allows)
  --num-threads N   --cpus-per-task, and OMP_NUM_THREADS and MKL_NUM_THREADS of each job (default: 1)
  --gpu N           --gres=gpu:N; 0 hides the GPUs
  --mem M           --mem of each job, such as 4G
  --time T          --time: minutes, H:M:S or D-H:M:S (SLURM may end a job a minute late)
  --config FILE     the site's own options (default: conf/slurm.conf, or tools/slurm.conf, if there)
  --NAME VALUE      any other option that the site's file defines

The site's file has lines such as:
  command sbatch --partition=long --account=speech
  option gpu=* --partition=gpu --gres=gpu:$0
  default time=1-0
  setup module load cuda
"""

import cluster

OWN_LINES = """\
command sbatch
option mem=* --mem=$0
option num_threads=* --cpus-per-task=$0
option gpu=0
option gpu=* --gres=gpu:$0
option time=* --time=$0
"""


def to_arguments(numbers, at_once, title, log):
    pattern = "%a".join(piece.replace("%", "%%") for piece in log)
    array = [] if numbers == [None] else [f"--array={numbers[0]}-{numbers[-1]}%{at_once}"]
    return [
        "--parsable", "--wait", *array, f"--job-name={title}", f"--output={pattern}", "--open-mode=append",
    ]  # fmt: skip


cluster.main(__doc__, OWN_LINES, "slurm.conf", to_arguments, "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", ["scancel"])
