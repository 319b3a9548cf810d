#!/usr/bin/env python3
"""Run a command, or an array of them, through Grid Engine, with a log each (the contract of Kaldi's queue.pl).

usage: gridengine.py [options] [JOB=1:N] LOG COMMAND [ARGUMENT...]

  gridengine.py --mem 4G exp/log/train.log python -m ser.train --seed 1
  gridengine.py --max-jobs-run 8 JOB=1:20 exp/log/train.JOB.log python -m ser.train --job JOB runs.list

JOB (or any other name before =1:N that occurs in no path) is replaced by 1, 2, ... N in the log's name and
in the arguments. The command is run as it is: quotes, $ and | in its arguments have no special meaning. Its
output goes into the log. gridengine.py waits for all jobs (`qsub -sync y -t`), and exits
with status 1 if one failed. Ctrl-C deletes them. The log, the command and the current folder
must be visible on every machine of the cluster.

options:
  --max-jobs-run N  at most N jobs of the array at a time (default: as many as Grid Engine allows)
  --num-threads N   -pe smp N, and OMP_NUM_THREADS and MKL_NUM_THREADS of each job (default: 1)
  --gpu N           -l gpu=N; 0 hides the GPUs
  --mem M           -l mem_free=M
  --time T          -l h_rt: minutes, H:M:S or D-H:M:S, as in SLURM
  --config FILE     the site's own options (default: conf/gridengine.conf, or tools/gridengine.conf, if there)
  --NAME VALUE      any other option that the site's file defines

The site's file has lines such as these, like Kaldi's conf/queue.conf:
  command qsub -V -q long.q -P speech
  option gpu=* -q gpu.q -l gpu=$0
  default time=1-0
  setup module load cuda
"""

import cluster

OWN_LINES = """\
command qsub -V
option mem=* -l mem_free=$0
option num_threads=1
option num_threads=* -pe smp $0
option gpu=0
option gpu=* -l gpu=$0
option time=* -l h_rt=$0
"""


def to_arguments(numbers, at_once, title, log):
    array = [] if numbers == [None] else ["-t", f"{numbers[0]}-{numbers[-1]}", "-tc", str(at_once)]
    pattern = "$TASK_ID".join(log)
    return [
        "-terse", "-sync", "y", *array, "-N", f"j_{title}", "-cwd",
        "-S", "/bin/bash", "-C", "", "-j", "y", "-o", f":{pattern}",
    ]  # fmt: skip


cluster.main(__doc__, OWN_LINES, "gridengine.conf", to_arguments, "SGE_TASK_ID", "JOB_ID", ["qdel"])
