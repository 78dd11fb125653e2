"""INT8 after training, by ONNX Runtime's own quantizer; a zero stays exactly zero."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from schemas.quantize import Int8Dynamic, Int8Static
from workers.quantization.calibrate import Feeds, masking_nodes, save_ranges
from workers.quantization.zeros import ZeroCheck, check_zeros

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
_LARGEST = 1_900_000_000
"""Bytes of an ONNX file that the quantizer takes in one piece: a protobuf message ends at 2 GiB."""


class QuantizationFailed(Exception):
    """The quantizer does not take this model; the pruned model is whole without it."""


def quantize_onnx(
    source: Path, target: Path, spec: Int8Dynamic | Int8Static, batches: Iterable[Feeds]
) -> ZeroCheck:
    """Write `source` with INT8 weights to `target`, and compare the zeros of both.

    Weights of layers are symmetric and per channel, so their zero point is 0; an embedding's may be another.
    `batches` are inputs by name, one batch at a time; they are read for static quantization only, which keeps
    the activations' ranges (minmax) or histograms. Scores under an attention mask stay in float there: one
    scale for the mask and the scores would level the scores. In dynamic quantization convolutions stay in
    float: ONNX Runtime has no fast kernel.
    Raises QuantizationFailed.
    """
    if source.stat().st_size > _LARGEST or source.with_name(source.name + ".data").exists():
        raise QuantizationFailed("the ONNX file keeps its weights in a second file, as it is over 2 GB")
    with TemporaryDirectory(prefix="secateur-") as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        try:
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            _refuse_nan(onnx.load(prepared))
            if isinstance(spec, Int8Static):
                _static(prepared, target, spec, batches)
            else:
                _dynamic(prepared, target)
        except Exception as error:  # the quantizer raises anything at all, and the job goes on without it
            reason = str(error).strip().partition("\n")[0][:300]
            raise QuantizationFailed(f"{type(error).__name__}: {reason}") from error
        return check_zeros(onnx.load(prepared), onnx.load(target))


def _refuse_nan(model: onnx.ModelProto) -> None:
    for one in model.graph.initializer:
        values = numpy_helper.to_array(one)
        if np.issubdtype(values.dtype, np.floating) and np.isnan(values).any():
            raise ValueError(f"{one.name} holds NaN")


def _static(prepared: Path, target: Path, spec: Int8Static, batches: Iterable[Feeds]) -> None:
    types, method = sorted({*QLinearOpsRegistry, *QDQRegistry}), _METHODS[spec.calibration]
    ranges = prepared.with_name("ranges.json")
    save_ranges(prepared, batches, method, types, ranges)
    quantize_static(
        str(prepared),
        str(target),
        None,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=types,
        nodes_to_exclude=masking_nodes(onnx.load(prepared)),
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=method,
        calibration_cache_path=str(ranges),
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
    )


def _dynamic(prepared: Path, target: Path) -> None:
    quantize_dynamic(
        str(prepared),
        str(target),
        op_types_to_quantize=["MatMul", "Gemm", "Attention"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"WeightSymmetric": True},
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer advises on the root logger what has been done already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
