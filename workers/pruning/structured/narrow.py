"""Attention whose heads are together narrower than its input, which torch's own module cannot be."""

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

from workers.pruning.structured.narrow_windows import DENSE_TO_NARROW

NARROW = "narrow"


class NarrowAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` that has lost heads: the same tensors, by the same names, read without the rule
    that the heads are as wide as the input.

    Made of a dense one by `become_narrow`. `in_proj_weight` is [3 · heads · head_dim, embed_dim],
    `out_proj.weight` [embed_dim, heads · head_dim].
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention.forward`; `is_causal` is a hint there and not needed here."""
        del is_causal
        batched, swapped = query.dim() == 3, query.dim() == 3 and not self.batch_first
        query, key, value = (
            self._split(one)
            for one in self._projected(
                *(_batch_first(one, batched=batched, swapped=swapped) for one in (query, key, value))
            )
        )
        if key_padding_mask is not None and not batched:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        mask = self._mask(attn_mask, key_padding_mask, query)
        weights: Tensor | None = None
        if need_weights:
            mixed, each = self._weighed(query, key, value, mask)
            weights = each.mean(dim=1) if average_attn_weights else each
        else:
            rate = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=rate)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        output = output.transpose(0, 1) if swapped else output
        if batched:
            return output, weights
        return output.squeeze(0), weights.squeeze(0) if weights is not None else None

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        biases = self.in_proj_bias.chunk(3) if self.in_proj_bias is not None else (None, None, None)
        weights = (
            self.in_proj_weight.chunk(3)
            if self.in_proj_weight is not None
            else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        )
        return (
            F.linear(query, weights[0], biases[0]),
            F.linear(key, weights[1], biases[1]),
            F.linear(value, weights[2], biases[2]),
        )

    def _split(self, one: Tensor) -> Tensor:
        """[N, T, heads · head_dim] to [N, heads, T, head_dim]."""
        return one.view(*one.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(self, attention: Tensor | None, padding: Tensor | None, query: Tensor) -> Tensor | None:
        """Both masks as one to add to the scores, [N, heads, T, S] or fewer; True and -inf hide."""
        mask = _additive(attention, query)
        if mask is not None and mask.dim() == 3:
            mask = mask.view(-1, self.num_heads, *mask.shape[1:])
        hidden = _additive(padding, query)
        if hidden is None:
            return mask
        hidden = hidden[:, None, None, :]
        return hidden if mask is None else mask + hidden

    def _weighed(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        scores = query @ key.transpose(-2, -1) * self.head_dim**-0.5
        weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        weights = F.dropout(weights, self.dropout, self.training)
        return weights @ value, weights


_NARROW_OF: dict[type[nn.Module], type[nn.Module]] = {
    nn.MultiheadAttention: NarrowAttention,
    **DENSE_TO_NARROW,
}


def become_narrow(part: nn.Module) -> None:
    """Change the class of an attention module in place; names in its state dict stay."""
    if type(part) not in _NARROW_OF:
        raise ValueError(f"{type(part).__name__} has no narrow form")
    part.__class__ = _NARROW_OF[type(part)]
    if isinstance(part, NarrowAttention):
        # encoder layers of torch then take their plain path, which calls `forward`
        part._qkv_same_embed_dim = False


def kind_of(part: nn.Module) -> str | None:
    """`narrow`, or `dense` for attention that can become so; None: neither."""
    if type(part) in _NARROW_OF.values():
        return NARROW
    return "dense" if type(part) in _NARROW_OF else None


def _batch_first(one: Tensor, *, batched: bool, swapped: bool) -> Tensor:
    if not batched:
        return one.unsqueeze(0)
    return one.transpose(0, 1) if swapped else one


def _additive(mask: Tensor | None, like: Tensor) -> Tensor | None:
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
