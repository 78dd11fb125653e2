"""The metric of a model on the validation split: top-1 accuracy."""

from collections.abc import Callable

import torch
from torchmetrics.classification import MulticlassAccuracy

from workers.data.bundle import Bundle
from workers.errors import ModelError
from workers.models.loaded import LoadedModel


@torch.inference_mode()
def accuracy(
    model: LoadedModel, bundle: Bundle, *, batch_size: int, on_batch: Callable[[int, int], None]
) -> float:
    """Share of validation samples whose highest score is their label, in [0, 1].

    `on_batch(done, of)` is called after each batch and may raise Stopped. Raises ModelError for NaN scores.
    """
    model.module.eval()
    metric = MulticlassAccuracy(num_classes=model.classes, average="micro").to(model.device)
    batches = -(-len(bundle.validation) // batch_size)
    for number, (inputs, labels) in enumerate(
        bundle.batches(bundle.validation, batch_size, device=model.device), start=1
    ):
        logits = model.logits(inputs)
        if bool(logits.isnan().any()):
            raise ModelError(
                f"{model.architecture} answers NaN on the validation split: check the weights for NaN, "
                "or lower fine_tune.optimizer.lr if this is after a round"
            )
        metric.update(logits, labels)
        on_batch(number, batches)
    return float(metric.compute())
