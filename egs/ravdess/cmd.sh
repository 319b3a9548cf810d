# Where jobs run: the only place that knows. Any runner with the contract of Kaldi's run.pl will do:
#   runner [options] [JOB=1:N] LOG COMMAND...
feature_cmd="run.py"
train_cmd="run.py --mem 4G"
