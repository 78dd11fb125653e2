"""Which axes of a model's inputs may have another length in an exported file than in the example."""

from collections.abc import Iterable, Mapping

from torch import Tensor

BATCH, SEQUENCE, TARGET = "batch", "sequence", "target_sequence"
_STREAMS = {"input_ids": SEQUENCE, "input_values": SEQUENCE, "decoder_input_ids": TARGET}
_BESIDE = ("attention_mask", "token_type_ids")
"""As long as the first kind of stream, where the model has one."""


def free_axes(inputs: Mapping[str, Tensor]) -> dict[str, dict[int, str]]:
    """For each input its free axes and their names; axes of one name have one length.

    The samples are always free. So are the tokens of texts and of targets and the values of raw sound [N, T];
    images and spectrograms keep the size that the model was made for.
    """
    streams = {name: _STREAMS[name] for name, value in inputs.items() if name in _STREAMS and value.ndim == 2}
    if SEQUENCE in streams.values():
        streams |= dict.fromkeys(_BESIDE, SEQUENCE)
    return {name: {0: BATCH} | ({1: streams[name]} if name in streams else {}) for name in inputs}


def with_two(values: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """The inputs with two samples or more: torch.export takes an axis of length 1 for a constant."""
    return tuple(value if len(value) > 1 else value.repeat_interleave(2, 0) for value in values)
