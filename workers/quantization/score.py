"""The metric of an ONNX file, through ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch

from workers.data.bundle import Bundle
from workers.models.loaded import Batch, LoadedModel
from workers.quantization.int8 import QuantizationFailed
from workers.tasks.kind import Measured


def judge_onnx(
    path: Path,
    model: LoadedModel,
    bundle: Bundle,
    *,
    batch_size: int,
    threads: int,
    on_batch: Callable[[int, int], None],
) -> Measured:
    """The metric of the file that was made of `model`, on the validation split and on the CPU.

    `on_batch(done, of)` is called after each batch and may raise Stopped. Raises QuantizationFailed where
    ONNX Runtime does not run the file, or the file answers NaN.
    """
    session, cpu = _session(path, threads), torch.device("cpu")
    split, measure = bundle.validation, model.kind.measure(model, cpu)
    size = model.kind.evaluation_batch(batch_size, split.label_shape)
    batches = -(-len(split) // size)
    for number, (inputs, labels) in enumerate(bundle.batches(split, size, device=cpu), 1):
        measure.update(_scores(session, inputs), labels, inputs)
        on_batch(number, batches)
    return measure.compute()


def try_one(path: Path, bundle: Bundle) -> None:
    """Run the file on one validation sample; raises as `judge_onnx` does."""
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
        scores, *_ = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    except Exception as error:  # as above
        raise QuantizationFailed(f"ONNX Runtime does not run the file: {str(error)[:300]}") from error
    found = torch.from_numpy(scores)
    if bool(found.isnan().any()):
        raise QuantizationFailed("the INT8 file answers NaN")
    return found
