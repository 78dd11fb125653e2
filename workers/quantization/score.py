"""The metric of an ONNX file, through ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torchmetrics.classification import MulticlassAccuracy

from workers.data.bundle import Bundle


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

    `on_batch(done, of)` is called after each batch and may raise Stopped.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    metric = MulticlassAccuracy(num_classes=classes, average="micro")
    batches = -(-len(bundle.validation) // batch_size)
    cpu = torch.device("cpu")
    for number, (inputs, labels) in enumerate(bundle.batches(bundle.validation, batch_size, device=cpu), 1):
        (scores,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        metric.update(torch.from_numpy(scores), labels)
        on_batch(number, batches)
    return float(metric.compute())
