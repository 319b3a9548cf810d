# Where jobs run: the only place that knows. run.py: on this machine. slurm.py, gridengine.py: on a cluster
# (`slurm.py --help` says where its site's options stand). Kaldi's run.pl, slurm.pl and queue.pl do, too.
cmd=${SER_CMD:-run.py}
feature_cmd="$cmd"
train_cmd="$cmd --mem 4G"
