"""The two losses of classifiers: cross-entropy against labels, and divergence from a teacher's scores."""

import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor

IGNORED = -100
"""A label that counts for nothing: the last token of a block has no next one."""


def cross_entropy(
    scores: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Scores [N, classes] and labels [N], or [N, T, classes] and [N, T]; `IGNORED` labels are left out."""
    return F.cross_entropy(
        scores.flatten(0, -2),
        labels.flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )


def softened_divergence(scores: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of softened scores [N, classes] or [N, T, classes] (Hinton et al. 2015,
    section 2): mean over samples, or over tokens."""
    student = F.log_softmax(scores.flatten(0, -2) / temperature, dim=-1)
    target = F.log_softmax(wanted.flatten(0, -2) / temperature, dim=-1)
    return F.kl_div(student, target, reduction="batchmean", log_target=True) * temperature**2
