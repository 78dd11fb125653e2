"""Ranges of activations, batch by batch: only ranges or histograms stay in memory, never the activations."""

import io
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data

Feeds = dict[str, NDArray[np.generic]]
"""Inputs of one batch, by name."""

MASKING = 1e4
"""A constant from here on says "never" to a softmax. In one INT8 scale with the scores beside it, it leaves
all of them at one value: a BERT's attention then sees no difference between its words."""

_ARITHMETIC = frozenset({"Add", "Cast", "Identity", "Max", "Min", "Mul", "Sub", "Where"})
_SHAPES = frozenset({"Concat", "Expand", "Gather", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_CARRIERS = _ARITHMETIC | _SHAPES
"""What masks are made with. A Clip to the largest float ends there: what it gives has no mask in it."""


def save_ranges(
    model: Path, batches: Iterable[Feeds], method: CalibrationMethod, types: list[str], target: Path
) -> None:
    """Write the ranges of what the nodes of `types` take and give, over all batches, to `target`.

    Batches may differ in length. ONNX Runtime's own loop keeps each activation of each batch until the last,
    and stacks them, which asks for batches of one shape: with 8 batches of 16 images of 96 x 96 a
    squeezenet1_1 took 756 MiB so. Raises ValueError where there is no batch.
    """
    calibrator = create_calibrator(
        model, types, augmented_model_path=str(target.with_suffix(".onnx")), calibrate_method=method
    )
    masked = masked_tensors(onnx.load(model))
    if method is not CalibrationMethod.MinMax:  # a histogram from 5 to 3e38 has no bins
        calibrator.tensors_to_calibrate = {
            name for name in calibrator.tensors_to_calibrate if name not in masked
        }
    empty = True
    with redirect_stdout(io.StringIO()):
        for feeds in batches:
            calibrator.collect_data(_One(feeds))
            empty = False
        if empty:
            raise ValueError("there are no samples to calibrate with")
        save_tensors_data(calibrator.compute_data(), target)


def masked_tensors(model: onnx.ModelProto) -> frozenset[str]:
    """Tensors with a masking constant in them: the constant, and what masks are made of it."""
    masked = {one.name for one in model.graph.initializer if _masks(one)}
    for node in model.graph.node:  # in order of their work, as the format demands
        if node.op_type in _CARRIERS and masked.intersection(node.input):
            masked.update(node.output)
    return frozenset(masked)


def masking_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that read such a tensor, the softmax too: they must stay in float."""
    masked = masked_tensors(model)
    return [node.name for node in model.graph.node if masked.intersection(node.input)]


def _masks(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
        return False
    values = np.abs(numpy_helper.to_array(tensor))
    return bool((values >= MASKING).any())


class _One(CalibrationDataReader):  # type: ignore[misc]
    """One batch, then no more."""

    def __init__(self, feeds: Feeds) -> None:
        self._left: Feeds | None = feeds

    def get_next(self) -> Feeds | None:
        feeds, self._left = self._left, None
        return feeds
