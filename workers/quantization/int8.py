"""INT8 after training, by ONNX Runtime's own quantizer; a zero stays exactly zero."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from schemas.quantize import Int8Dynamic, Int8Static
from workers.quantization.zeros import ZeroCheck, check_zeros

Feeds = dict[str, NDArray[np.generic]]

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

    Weights are symmetric and per channel, so their zero point is 0. `batches` are inputs by name, one batch
    at a time; they are read for static quantization only, which keeps their activations' ranges (minmax) or
    histograms. In dynamic quantization convolutions stay in float: ONNX Runtime has no fast kernel.
    Raises QuantizationFailed.
    """
    if source.stat().st_size > _LARGEST or source.with_name(source.name + ".data").exists():
        raise QuantizationFailed("the ONNX file keeps its weights in a second file, as it is over 2 GB")
    with TemporaryDirectory(prefix="secateur-") as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        try:
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            if isinstance(spec, Int8Static):
                _static(prepared, target, spec, batches)
            else:
                _dynamic(prepared, target)
        except Exception as error:  # the quantizer raises anything at all, and the job goes on without it
            reason = str(error).strip().partition("\n")[0][:300]
            raise QuantizationFailed(f"{type(error).__name__}: {reason}") from error
        return check_zeros(onnx.load(prepared), onnx.load(target))


def _static(prepared: Path, target: Path, spec: Int8Static, batches: Iterable[Feeds]) -> None:
    quantize_static(
        str(prepared),
        str(target),
        _Reader(batches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=_METHODS[spec.calibration],
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


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands one batch after the other to the calibration."""

    def __init__(self, batches: Iterable[Feeds]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Feeds | None:
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer advises on the root logger what has been done already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
