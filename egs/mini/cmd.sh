# Where jobs run; egs/ravdess/cmd.sh says more.
feature_cmd="run.py"
train_cmd="run.py"
