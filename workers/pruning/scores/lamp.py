"""Scores that can be ranked across layers (Lee et al. 2021)."""

import numpy as np
import torch
from torch import Tensor


def lamp(weights: Tensor) -> Tensor:
    """The roots of a layer's LAMP scores [n], float32, rising: those of `weights` [n] by rising magnitude.

    With the magnitudes v sorted, v_i's score is v_i² / Σ v_j² over j ≥ i (Lee et al. 2021). In that order
    scores never fall, so within a layer LAMP is magnitude, and only its ranks among layers matter. The root
    keeps them and does not underflow. Takes 24 bytes a weight besides. Raises ValueError for NaN or infinity.
    """
    values = weights.abs().to(torch.promote_types(weights.dtype, torch.float32)).cpu().numpy()
    values.sort()
    if len(values) == 0 or values[-1] == 0:
        return torch.zeros(len(values), dtype=torch.float32)
    if not np.isfinite(values[-1]):  # NaN sorts last
        raise ValueError("the weights hold NaN or infinity: they have no order to cut by")
    shares = values.astype(np.float64) / values[-1]
    sums = np.square(shares)
    np.cumsum(sums[::-1], out=sums[::-1])
    np.divide(shares, np.sqrt(sums, out=sums), out=shares)
    return torch.from_numpy(shares.astype(np.float32))
