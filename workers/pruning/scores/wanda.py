"""Weights and activations (Sun et al. 2024)."""

from torch import Tensor


def wanda(weight: Tensor, norms: Tensor) -> Tensor:
    """|w| · ‖x‖₂ [groups, outputs, inputs, kernel…] (Sun et al. 2024, Wanda).

    `weight` is seen by rows in that shape; `norms` [groups, inputs, kernel…] holds the L2 norm, over all
    samples and positions, of what each weight of a row is multiplied with. Only weights of one row compare.
    """
    return weight.abs().mul(norms.unsqueeze(1))
