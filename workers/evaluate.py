"""The metric of a model on the validation split, whatever its task."""

from collections.abc import Callable

import torch

from workers.data.bundle import Bundle
from workers.errors import ModelError
from workers.models.loaded import LoadedModel
from workers.tasks.kind import Measured


def metric_of(
    model: LoadedModel, bundle: Bundle, *, batch_size: int, on_batch: Callable[[int, int], None]
) -> float:
    """The task's metric in [0, 1], the larger the better; raises as `judge` does."""
    return judge(model, bundle, batch_size=batch_size, on_batch=on_batch).value


@torch.inference_mode()
def judge(
    model: LoadedModel, bundle: Bundle, *, batch_size: int, on_batch: Callable[[int, int], None]
) -> Measured:
    """The metric on the validation split, and what else is said of its task.

    A batch has at most `batch_size` samples. `on_batch(done, of)` is called after each and may raise Stopped.
    Raises ModelError for NaN scores.
    """
    model.module.eval()
    split, measure = bundle.validation, model.kind.measure(model, model.device)
    size = model.kind.evaluation_batch(batch_size, split.label_shape)
    batches = -(-len(split) // size)
    for number, (inputs, labels) in enumerate(bundle.batches(split, size, device=model.device), start=1):
        scores = model.logits(inputs)
        if bool(scores.isnan().any()):
            raise ModelError(
                f"{model.architecture} answers NaN on the validation split: check the weights for NaN, "
                "or lower fine_tune.optimizer.lr if this is after a round"
            )
        measure.update(scores, labels, inputs)
        on_batch(number, batches)
    return measure.compute()
