"""Models: the frames of an utterance -> a score for each class. One module a paper; its name is the `kind` that a
system file's `model` names, and nothing else has to list it.

A module has a `Config`, a pydantic dataclass (`@dataclass(config=strict, frozen=True, kw_only=True)`, of ser.settings)
whose fields are the keys of the system file's `model`, with their types and limits; a `__post_init__` raises ValueError
for values that do not go together. A setting that is added later needs a default by which nothing changes.

A model is a network or a classical one.

Networks
--------
A network's module has a `Network`, a torch.nn.Module, and the system file has a section `training`.
ser.learners.network trains it, and ser.networks builds, runs and saves it.

Network(config, n_features, n_classes[, other sizes])
    n_features: values of a frame, as the feature and its `parts` give them. Other sizes come with the inputs below. The
    start of all weights follows from torch's global random numbers. Raises UserError, which names the key and a remedy,
    where the sizes do not suit the Config.

forward(frames, lengths[, other inputs]) -> (scores, penalty)
    frames (B, T, D) float32, normalised, with zeros behind an utterance's own; lengths (B,) int64, of at least 1.
    scores: before the softmax, (B, classes), or (B, T, classes) where each frame is scored and trained on; an
    utterance's log-posteriors are then the mean of its frames'. penalty: a scalar that training adds to the
    cross-entropy; `scores.new_zeros(())` where there is none. With `precision: bfloat16` it runs under autocast.

    Padding must not change what an utterance gives: in evaluation its scores are the same in any batch. All that is
    learned or counted is a parameter or a buffer, and all random numbers are torch's, so that a training goes on from a
    checkpoint as if it had not stopped.

It may leave out all of these:

output
    The last layer, a torch.nn.Linear or the like. ser.draw_run draws what goes into it, (B, E) or (B, T, E); a network
    without it cannot be drawn.

frame_weights(frames, lengths, even=False) -> {name of what attends: weights (B, T)}
    What each attention gives the frames, for ser.draw_run. Those of one utterance sum to 1, or nearly, over all names
    together; padding has 0. even: as if all that is attended to weighed the same, to compare with. {} where a setting
    leaves the attention out.

word_weights(frames, lengths, words, n_words, **others) -> {name of what attends: weights (B, M)}
    The same of the words, of a network that reads them, from what forward takes, all by name. Another input that can be
    attended to names its method (ser/inputs/__init__.py, WEIGHTS).

learns_from_targets
    Where true, forward is given `targets` (B,), class numbers, in training and never in evaluation.

Other inputs
    `Config.extras`, a property or a field, is a tuple of what the network reads beside frames. Each is a module of
    ser/inputs, brings a size to the constructor and tensors to forward, all by name, and may ask for something that it
    sets before training:

    speakers    n_speakers       speakers (B,), below 0 where training has none such
    words       vocabulary_size  words (B, M), n_words (B,)    needs `Config.words`, the table of transcripts, and
                                                               `words`, a torch.nn.Embedding of `Config.word_size`
    xvectors    xvector_size     xvectors (B, D)               needs the buffers xvector_mean and xvector_deviation (D,)

Classical models
----------------
A classical model's module has a function `estimator`, and the system file no section `training`. ser.learners.classical
trains, saves and asks it.

Config.functionals
    Statistics of the frames (ser.functionals), one after the other: what the estimator is given of an utterance. The
    frames are not normalised, but by speaker where the system says so.

estimator(config, seed) -> a fresh scikit-learn classifier, or a pipeline that ends in one
    With `predict_proba`, its probabilities are the posteriors; without, the softmax of its `decision_function`.

It may leave out all of these:

grid(config, n_values) -> {parameter: values}
    What to choose from, as GridSearchCV has it, for utterances of `n_values` values; by UA in `Config.inner_folds`
    inner folds of the training part.

TRUSTED
    Types that skops does not load by itself, as scikit-learn's trees: ["sklearn.tree._tree.Tree"].

refuse_damaged(estimator)
    Raise an error where the parts of an estimator that was read from a file do not fit together.

ser/models/logistic.py is the shortest example.

What several networks share is in ser.layers (masks, dropout, the start of weights), ser.recurrent, ser.convolutions,
ser.windows, ser.segments and ser.functionals; what is there only for speed belongs there too, so that a model reads
like its paper. ser/models/bledea.py is the shortest example.
"""
