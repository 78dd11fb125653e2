"""Which rule follows which operator of ATen. An operator without one freezes all that goes in."""

from collections.abc import Callable

import torch

from workers.pruning.structured import rules_elements as elements
from workers.pruning.structured import rules_layers as layers
from workers.pruning.structured import rules_shape as shape
from workers.pruning.structured.op import Op

Rule = Callable[[Op], None]

_BY_RULE: dict[Rule, str] = {
    layers.product: "mm bmm",
    layers.product_and_sum: "addmm baddbmm",
    layers.grouped_product: "_grouped_mm",
    layers.linear: "linear",
    layers.vector_product: "mv dot",
    layers.convolution: "convolution",
    layers.batch_norm: "native_batch_norm cudnn_batch_norm _native_batch_norm_legit_no_training",
    layers.group_norm: "native_group_norm",
    layers.layer_norm: "native_layer_norm _fused_rms_norm",
    layers.embedding: "embedding",
    layers.weight_norm: "_weight_norm_interface",
    elements.pointwise: "copy hardswish lerp masked_fill rsub where dropout",
    elements.like: "zeros_like ones_like empty_like full_like rand_like randn_like",
    elements.same: "_to_copy detach alias lift_fresh contiguous native_dropout bernoulli _conj fill zero",
    elements.reduction: "sum mean amax amin var std var_mean std_mean prod any all nansum",
    elements.norm_reduction: "linalg_vector_norm norm",
    elements.picking_reduction: "max min argmax argmin median",
    elements.softmax: "_softmax _safe_softmax _log_softmax softmax log_softmax cumsum cumprod",
    elements.spatial: (
        "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d upsample_bilinear2d "
        "upsample_nearest2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa avg_pool1d "
        "_upsample_nearest_exact2d reflection_pad2d replication_pad2d grid_sampler_2d avg_pool3d "
        "max_pool3d_with_indices _adaptive_avg_pool3d upsample_trilinear3d reflection_pad1d "
        "replication_pad1d upsample_linear1d upsample_nearest1d"
    ),
    elements.weight_times: "_prelu_kernel prelu",
    elements.accumulate: "index_add scatter_add",
    shape.restrided: "as_strided",
    shape.fresh: "new_zeros new_ones new_empty new_full new_empty_strided",
    shape.view: "view _unsafe_view reshape _reshape_alias unsqueeze squeeze flatten unflatten _reshape_copy",
    shape.permute: "permute",
    shape.transpose: "transpose",
    shape.turned: "t mT",
    shape.expand: "expand",
    shape.repeat: "repeat",
    shape.unfolded: "unfold",
    shape.as_complex: "view_as_complex",
    shape.as_real: "view_as_real",
    shape.diagonal: "tril triu",
    shape.select: "select",
    shape.unbind: "unbind",
    shape.slices: "slice",
    shape.split: "split split_with_sizes",
    shape.concatenate: "cat",
    shape.stack: "stack",
    shape.pad: "constant_pad_nd",
    shape.reordered: "roll flip",
    shape.picked: "index_select gather",
    shape.index: "index",
    shape.columns: "im2col",
    shape.uncolumns: "col2im",
    shape.pixel_shuffle: "pixel_shuffle",
    shape.pixel_unshuffle: "pixel_unshuffle",
    shape.channel_shuffle: "channel_shuffle native_channel_shuffle",
}
_RULES: dict[str, Rule] = {
    f"aten::{name}": rule for rule, names in _BY_RULE.items() for name in names.split()
}


def rule_for(func: torch._ops.OpOverload) -> Rule | None:
    """The rule of an operator; in-place ones follow the one of the same name."""
    name = func._schema.name
    rule = _RULES.get(name) or _RULES.get(name.removesuffix("_"))
    if rule is None and torch.Tag.pointwise in func.tags:
        return elements.pointwise
    return rule
