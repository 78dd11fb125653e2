"""From stored images to the floats that the model takes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from workers.models.preprocessing import Preprocessing


class Normalize:
    """uint8 `pixel_values` [N,C,H,W] to `(value * scale - mean) / std` in float32; floats pass unchanged."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        mean = torch.tensor(preprocessing.mean).reshape(1, -1, 1, 1)
        std = torch.tensor(preprocessing.std).reshape(1, -1, 1, 1)
        self._factor = preprocessing.scale / std
        self._offset = -mean / std

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One batch; the stored tensors are not changed."""
        images = inputs["pixel_values"]
        if images.is_floating_point():
            return {"pixel_values": images}
        factor, offset = self._factor.to(images.device), self._offset.to(images.device)
        return {"pixel_values": images.to(torch.float32).mul_(factor).add_(offset)}


def as_they_are(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Token ids need no change."""
    return dict(inputs)
