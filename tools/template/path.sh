# The environment. Kaldi's queue.pl and slurm.pl read this file in each of their jobs, too.
. ../../path.sh
