"""How well a language model predicts: the probability that it gives to the right token, and perplexity.

The metric of a job is the larger the better and lies in [0, 1], so that floors, drops and curves mean for a
language model what they mean for a classifier: it is the geometric mean of the probabilities that the model
gives to the tokens that come, which is 1 / perplexity.
"""

from collections.abc import Callable
from math import exp

import torch

from workers.data.bundle import Bundle
from workers.errors import ModelError
from workers.loss import IGNORED, cross_entropy
from workers.models.loaded import LoadedModel

TOKENS_AT_A_TIME = 2048
"""Scores take four bytes for each token of the input and of the vocabulary: 400 MB for 49,152 of them."""


@torch.inference_mode()
def token_probability(
    model: LoadedModel, bundle: Bundle, *, batch_size: int, on_batch: Callable[[int, int], None]
) -> float:
    """exp(mean log-probability of the validation tokens), each given those before it in its block; in [0, 1].

    A batch has at most `batch_size` blocks, and fewer where they are long. `on_batch(done, of)` is called
    after each and may raise Stopped. Raises ModelError for NaN scores.
    """
    model.module.eval()
    split = bundle.validation
    size = max(1, min(batch_size, TOKENS_AT_A_TIME // split.labels.shape[1]))
    batches = -(-len(split) // size)
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for number, (inputs, labels) in enumerate(bundle.batches(split, size, device=model.device), start=1):
        loss = cross_entropy(model.logits(inputs), labels, reduction="sum")
        if bool(loss.isnan()):
            raise ModelError(
                f"{model.architecture} answers NaN on the validation split: check the weights for NaN, "
                "or lower fine_tune.optimizer.lr if this is after a round"
            )
        total += loss.double().cpu()
        tokens += int((labels != IGNORED).sum())
        on_batch(number, batches)
    return exp(-float(total) / tokens)


def perplexity(probability: float) -> float:
    """What people quote: 1 / `token_probability`; infinity for 0."""
    return 1 / probability if probability > 0 else float("inf")
