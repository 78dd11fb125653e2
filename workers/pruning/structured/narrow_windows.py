"""Attention of torchvision's Swin and MaxViT without some heads: their own is as wide as its input."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

_HIDDEN = -100.0
"""What torchvision adds to scores across a window's seam."""


class NarrowWindows(ShiftedWindowAttention):  # type: ignore[misc]
    """Swin's attention in shifted windows; `qkv.weight` is [3 · heads · head_dim, C]."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to the same."""
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % self.window_size[1], 0, -height % self.window_size[0]))
        padded = x.shape[1:3]
        shift = [
            0 if window >= side else by
            for window, side, by in zip(self.window_size, padded, self.shift_size, strict=True)
        ]
        x = torch.roll(x, shifts=[-by for by in shift], dims=(1, 2)) if any(shift) else x
        windows = _split(x, self.window_size)
        scores = self._scores(*(heads := self._heads(windows))[:2]) + self.get_relative_position_bias()
        if any(shift):
            scores = scores + _seams(padded, self.window_size, shift, x).repeat(len(x), 1, 1).unsqueeze(1)
        weights = F.dropout(torch.softmax(scores, dim=-1), self.attention_dropout, self.training)
        mixed = self.proj((weights @ heads[2]).transpose(1, 2).flatten(2))
        x = _joined(F.dropout(mixed, self.dropout, self.training), self.window_size, padded)
        x = torch.roll(x, shifts=shift, dims=(1, 2)) if any(shift) else x
        result: Tensor = x[:, :height, :width].contiguous()
        return result

    def _heads(self, windows: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value, each [windows, heads, T, head_dim]."""
        fused = F.linear(windows, self.qkv.weight, self._bias())
        parts = fused.view(*windows.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def _bias(self) -> Tensor | None:
        bias: Tensor | None = self.qkv.bias
        return bias

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        scale: float = query.shape[-1] ** -0.5
        return query * scale @ key.transpose(-2, -1)


class NarrowWindowsV2(NarrowWindows, ShiftedWindowAttentionV2):  # type: ignore[misc]
    """Swin V2: scores are cosines, and keys have no bias."""

    def _bias(self) -> Tensor | None:
        bias: Tensor | None = self.qkv.bias
        if bias is None:
            return None
        query, key, value = bias.chunk(3)
        return torch.cat([query, torch.zeros_like(key), value])

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        scale: Tensor = torch.clamp(self.logit_scale, max=math.log(100.0)).exp()
        return F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1) * scale


class NarrowPartitions(RelativePositionalMultiHeadAttention):  # type: ignore[misc]
    """MaxViT's attention within partitions."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, G, P, D] to the same; scaled by the dense width, as it was trained."""
        query, key, value = (
            part.unflatten(-1, (self.n_heads, self.head_dim)).transpose(2, 3)
            for part in self.to_qkv(x).chunk(3, dim=-1)
        )
        scores = query @ (key * self.scale_factor).transpose(-2, -1) + self.get_relative_positional_bias()
        mixed: Tensor = self.merge((torch.softmax(scores, dim=-1) @ value).transpose(2, 3).flatten(3))
        return mixed


def _split(x: Tensor, window: list[int]) -> Tensor:
    """[B, H, W, C] to [B · windows, T, C]."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window[0], window[0], width // window[1], window[1], channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window[0] * window[1], channels)


def _joined(windows: Tensor, window: list[int], size: tuple[int, ...]) -> Tensor:
    """[B · windows, T, C] to [B, H, W, C]."""
    rows, columns = size[0] // window[0], size[1] // window[1]
    x = windows.view(-1, rows, columns, window[0], window[1], windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, *size, windows.shape[-1])


def _seams(size: tuple[int, ...], window: list[int], shift: list[int], like: Tensor) -> Tensor:
    """[windows, T, T]: what hides positions of a window from each other that the shift brought together."""
    rows, columns = (
        (torch.arange(side, device=like.device) >= side - edge).long()
        + (torch.arange(side, device=like.device) >= side - by).long()
        for side, edge, by in zip(size, window, shift, strict=True)
    )
    regions = (3 * rows[:, None] + columns)[None, :, :, None]
    numbers = _split(regions, window).squeeze(-1)
    apart = numbers[:, None, :] != numbers[:, :, None]
    return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill(apart, _HIDDEN)


DENSE_TO_NARROW: dict[type[nn.Module], type[nn.Module]] = {
    ShiftedWindowAttention: NarrowWindows,
    ShiftedWindowAttentionV2: NarrowWindowsV2,
    RelativePositionalMultiHeadAttention: NarrowPartitions,
}
FUSED = ("qkv", "to_qkv")
"""Names of the layer that makes query, key and value in each of them."""
