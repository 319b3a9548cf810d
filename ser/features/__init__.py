"""Features: the samples of a recording -> frames. There is one module per feature; its name is the `kind` under
`feature` in a system file, and it does not have to be registered anywhere.

A module defines:

Config
    A pydantic dataclass (`@dataclass(config=strict, frozen=True, kw_only=True)`, of ser.settings) whose fields are the
    keys of `feature` in the system file, with their types and limits; `__post_init__` raises ValueError for values
    that are inconsistent. One field is `sample_rate`, in Hz: recordings are resampled to it. The folder in dump/ is
    named after the settings that differ from their defaults, so a setting that is added later needs a default that
    keeps the old behaviour.

extract(samples, config) -> frames
    samples: (N,) float32 at config.sample_rate, one channel, full scale +-1; they must not be modified. frames:
    (T, D) float32, T at least 1, all finite, with the same D for every utterance. The same samples must give the same
    bytes. Raises UserError if no frames can be computed (see ser.dsp.check_length); the caller adds the name of the
    recording.

And optionally:

heard(samples, config) -> samples
    For features with a time axis: the samples (N',) that the frames cover, after any cutting or padding. Frame t is
    centred at sample t * config.hop_length of these, so `Config` needs `hop_length` too. ser.draw_run plots attention
    over these samples. Use `heard = all_samples` (ser.dsp) if the frames cover the whole recording, and omit it for a
    feature with one frame per utterance.

columns(config) -> (D',) int
    For features of which a system may use only some parts: the indices of the selected values in a frame, in the order
    of `parts`. `Config` then has `parts`, a list of names that defaults to all of them. `extract` ignores `parts` and
    always returns everything, so that systems with different parts share one folder.

extract_many(batch, config, device) -> list of frames
    For features that a network computes: the frames of some recordings of similar length, which a GPU computes
    together. Each is what `extract` gives, up to rounding. device: as torch names it, such as "cuda".

Shared code is in ser.dsp and ser.spectra. ser/features/spectrum.py is the shortest example.
"""
