# Where jobs run; egs/ravdess/cmd.sh says more.
cmd=${SER_CMD:-run.py}
feature_cmd="$cmd"
train_cmd="$cmd"
