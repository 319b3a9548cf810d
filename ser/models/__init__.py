"""Models: the frames of an utterance -> a score for each class. There is one module per paper or classical method; its
name is the `kind` under `model` in a system file, and it does not have to be registered anywhere.

A module defines `Config`, a pydantic dataclass (`@dataclass(config=strict, frozen=True, kw_only=True)`, of
ser.settings) whose fields are the keys of `model` in the system file, with their types and limits; `__post_init__`
raises ValueError for values that are inconsistent. A setting that is added later needs a default that keeps the old
behaviour.

The module may define check_system(system), which raises ValueError, starting with the key, if the system's feature or
normalisation is not one that the model can take. Sizes are checked by the constructor.

A model is either a network or a classical model.

Networks
--------
A network's module defines `Network`, a torch.nn.Module, and the system file has a section `training`. ser.networks
builds, runs and saves the network, and ser.learners.network trains it.

Network(config, n_features, n_classes[, other sizes])
    n_features: values per frame, given by the feature and its `parts`. Other sizes come with the inputs below. All
    initial weights are drawn from torch's global random number generator. Raises UserError, naming the key and a
    remedy, if the sizes do not match the Config.

forward(frames, lengths[, other inputs]) -> (scores, penalty)
    frames: (B, T, D) float32, normalised, zero-padded at the end; lengths: (B,) int64, at least 1. scores: logits,
    (B, classes), or (B, T, classes) if each frame is scored and trained on; the log-posteriors of an utterance are then
    the mean over its frames. penalty: a scalar that is added to the cross-entropy in training,
    `scores.new_zeros(())` for none. With `precision: bfloat16`, forward runs under autocast.

    Padding must not affect the result: in evaluation, an utterance gets the same scores in any batch. Everything that
    is learned or counted must be a parameter or a buffer, and all random numbers must come from torch, so that training
    resumed from a checkpoint gives the same weights as uninterrupted training.

A network may also define:

output
    The last layer, such as a torch.nn.Linear. ser.draw_run plots the input of this layer, (B, E) or (B, T, E), and
    cannot plot a network without it.

frame_weights(frames, lengths, even=False) -> {name: weights (B, T)}
    The weights that each attention layer, by name, gives to the frames, for ser.draw_run. For each utterance the
    weights of all layers together sum to about 1; padding gets 0. even: return the weights that equal attention to
    everything would give, as a baseline. Return {} if attention is switched off.

word_weights(frames, lengths, words, n_words, **others) -> {name: weights (B, M)}
    The same for words, in a network that reads them. It is called with the arguments of forward, by keyword. Other
    inputs that can be attended to name their own method (ser/inputs/__init__.py, WEIGHTS).

rates() -> {parameter: factor}
    Factors of the learning rate, by the names of `named_parameters`; 1 for those that are left out. Parameters that
    training must not change have requires_grad False instead.

learns_from_targets
    If true, forward also gets `targets` (B,), the class indices; in training only.

Other inputs
    `Config.extras`, a property or a field, is a tuple of the inputs that the network reads besides frames. Each is the
    name of a module of ser/inputs, which passes a size to the constructor and tensors to forward, all by keyword, and
    may set attributes of the network before training:

    layers      n_layers         nothing                       layers of an encoder in the frames, which are (B, T,
                                                               n_layers * D); 1 for a feature that is no encoder's
    speakers    n_speakers       speakers (B,), negative for speakers who are not in the training set
    words       vocabulary_size  words (B, M), n_words (B,)    needs `Config.words`, the table of transcripts, and
                                                               `words`, a torch.nn.Embedding of `Config.word_size`
    xvectors    xvector_size     xvectors (B, D)               needs the buffers xvector_mean and xvector_deviation (D,)

Classical models
----------------
A classical model's module defines a function `estimator`, and the system file has no section `training`.
ser.learners.classical trains, saves and runs the model.

Config.functionals
    Statistics of the frames (ser.functionals); concatenated, they are the input of the estimator for an utterance. The
    frames are not normalised, except per speaker if the system asks for it.

Config.layers
    Optional, "all" or "best". "best" needs a feature of kind pretrained: one of its layers, or all together, is chosen
    in the inner folds along with the settings of `grid`, and the estimator gets only the values of the chosen ones.

estimator(config, seed) -> a new scikit-learn classifier, or a pipeline that ends in one
    If it has `predict_proba`, those are the posteriors; otherwise they are the softmax of its `decision_function`.

The module may also define:

grid(config, n_values) -> {parameter: values}
    The parameter grid to search, as for GridSearchCV; n_values is the length of the estimator's input. The values with
    the best UA in `Config.inner_folds` inner folds of the training set are used.

TRUSTED
    Types that skops does not load by default, such as scikit-learn's trees: ["sklearn.tree._tree.Tree"].

refuse_damaged(estimator)
    Raise an error if the parts of an estimator that was read from a file are inconsistent.

ser/models/logistic.py is the shortest example.

Code shared by networks is in ser.layers (masks, dropout, initialisation), ser.recurrent, ser.convolutions, ser.windows,
ser.segments and ser.functionals. Code that exists only for speed belongs there too, so that a model reads like its
paper. ser/models/bledea.py is the shortest network.
"""
