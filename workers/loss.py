"""The loss of every task: cross-entropy of scores against labels, over samples or over tokens."""

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
