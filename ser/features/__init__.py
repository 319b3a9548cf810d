"""Features: the samples of a recording -> frames. One module a feature; its name is the `kind` that a system file's
`feature` names, and nothing else has to list it.

A module has these two:

Config
    A pydantic dataclass (`@dataclass(config=strict, frozen=True, kw_only=True)`, of ser.settings) whose fields are the
    keys of the system file's `feature`, with their types and limits; a `__post_init__` raises ValueError for values
    that do not go together. It has `sample_rate`, in Hz: recordings are resampled to that. The folder in dump/ is named
    by the settings that are not the default, so a setting that is added later needs a default by which nothing changes.

extract(samples, config) -> frames
    samples (N,) float32 at config.sample_rate, one channel, full scale at +-1; they are not to be changed. frames
    (T, D) float32, T at least 1, all finite, with the same D for every utterance: the same bytes for the same samples.
    Raises UserError, which names no recording, where these samples give none (ser.dsp.check_length).

And these where they apply:

heard(samples, config) -> samples
    Where frames follow time: the samples (N',) that they are of, when a feature cuts or pads the recording. Frame t is
    centred at sample t * config.hop_length of these, so `Config` has `hop_length` too. ser.draw_run draws attention
    over them; a feature of one frame an utterance has none. `heard = all_samples` (ser.dsp) says that
    frames are of the whole recording.

columns(config) -> (D',) int
    Where a system may take a part of each frame: the numbers of the values that it takes, in its order. `Config` then
    has `parts`, a list of names, by default all. `extract` gives all parts whatever `parts` says, so that systems with
    other parts share one folder.

What several features share is in ser.dsp and ser.spectra. ser/features/spectrum.py is the shortest example.
"""
