"""The metric of a model on the validation split, whatever its task."""

from collections.abc import Callable

import torch
from torchmetrics.classification import MulticlassAccuracy

from schemas.job_spec import Task
from workers.data.bundle import Bundle
from workers.errors import ModelError
from workers.models.loaded import LoadedModel
from workers.perplexity import token_probability


def metric_of(
    model: LoadedModel, bundle: Bundle, *, batch_size: int, on_batch: Callable[[int, int], None]
) -> float:
    """The task's metric in [0, 1], the larger the better; raises as `accuracy` does."""
    measure = token_probability if model.task is Task.causal_lm else accuracy
    return measure(model, bundle, batch_size=batch_size, on_batch=on_batch)


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
