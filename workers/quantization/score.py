"""The metric of an ONNX file, through ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torchmetrics.classification import MulticlassAccuracy

from workers.data.bundle import Bundle
from workers.models.loaded import Batch
from workers.quantization.int8 import QuantizationFailed


def onnx_accuracy(
    path: Path,
    bundle: Bundle,
    *,
    classes: int,
    batch_size: int,
    threads: int,
    on_batch: Callable[[int, int], None],
) -> float:
    """Share of validation samples whose highest score is their label, on the CPU.

    `on_batch(done, of)` is called after each batch and may raise Stopped. Raises QuantizationFailed where
    ONNX Runtime does not run the file, or the file answers NaN.
    """
    session = _session(path, threads)
    metric = MulticlassAccuracy(num_classes=classes, average="micro")
    batches = -(-len(bundle.validation) // batch_size)
    cpu = torch.device("cpu")
    for number, (inputs, labels) in enumerate(bundle.batches(bundle.validation, batch_size, device=cpu), 1):
        metric.update(_scores(session, inputs), labels)
        on_batch(number, batches)
    return float(metric.compute())


def try_one(path: Path, bundle: Bundle) -> None:
    """Run the file on one validation sample; raises as `onnx_accuracy` does."""
    one = bundle.validation.take(torch.arange(1))
    session = _session(path, threads=1)
    for inputs, _ in bundle.batches(one, 1, device=torch.device("cpu")):
        _scores(session, inputs)


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each of its errors is a class of its own, with Exception for a base
        raise QuantizationFailed(f"ONNX Runtime does not open the file: {str(error)[:300]}") from error


def _scores(session: onnxruntime.InferenceSession, inputs: Batch) -> torch.Tensor:
    try:
        (scores,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    except Exception as error:  # as above
        raise QuantizationFailed(f"ONNX Runtime does not run the file: {str(error)[:300]}") from error
    found = torch.from_numpy(scores)
    if bool(found.isnan().any()):
        raise QuantizationFailed("the INT8 file answers NaN")
    return found
