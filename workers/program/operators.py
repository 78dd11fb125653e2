"""Which operators a program may call: arithmetic on tensors and shapes, and nothing that touches a file."""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from workers.errors import ModelError

_NAMES = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _fused_rms_norm _log_softmax
    _native_batch_norm_legit_no_training _softmax _to_copy _unsafe_view _upsample_nearest_exact2d abs acos
    acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    add addbmm addcdiv addcmul addmm alias all amax amin any arange argmax argmin argsort asin asinh atan
    atan2 atanh avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bilinear bitwise_and bitwise_not
    bitwise_or bitwise_xor bmm broadcast_to bucketize cat ceil celu channel_shuffle chunk clamp clamp_max
    clamp_min clone concat concatenate constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d convolution copy cos cosh cumprod cumsum detach diagonal diff div divide
    dot dropout einsum elu embedding empty_like eq erf erfc erfinv exp exp2 expand expand_as expm1
    feature_dropout fill flatten flip floor floor_divide fmod full full_like gather ge gelu glu greater
    greater_equal grid_sampler grid_sampler_2d group_norm gt hardshrink hardsigmoid hardswish hardtanh index
    index_add index_put index_select inner instance_norm isfinite isinf isnan layer_norm le leaky_relu lerp
    less less_equal lift_fresh lift_fresh_copy linalg_norm linalg_vector_norm linear linspace log log10 log1p
    log2 log_sigmoid log_softmax logical_and logical_not logical_or logical_xor logsumexp lt masked_fill
    masked_scatter matmul max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d maximum mean min
    minimum mish mm moveaxis movedim mul multiply mv narrow native_batch_norm native_dropout native_group_norm
    native_layer_norm ne neg negative new_empty new_full new_ones new_zeros nonzero norm not_equal one_hot
    ones ones_like outer pad permute pixel_shuffle pixel_unshuffle pow prelu prod reciprocal reflection_pad1d
    reflection_pad2d relu relu6 remainder repeat repeat_interleave replication_pad1d replication_pad2d reshape
    reshape_as rms_norm roll round rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_add
    select select_scatter selu sigmoid sign silu sin sinh size slice slice_scatter softmax softplus softshrink
    sort split split_with_sizes sqrt square squeeze stack std std_mean sub subtract sum sym_numel sym_size t
    tan tanh tensor_split threshold tile to topk transpose tril triu true_divide trunc type_as unbind
    unflatten unfold unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_trilinear3d var var_mean view view_as where xlogy zero zeros zeros_like
"""
_ATEN = frozenset(_NAMES.split())
"""Names in `torch.ops.aten`, each with its in-place form. Not here: what reads or writes files (`from_file`,
`save`), sets memory by hand (`set_`, `resize_`, `as_strided`, `empty_strided`) or trusts its indices, and
what gives other scores each time (`rand`)."""

_LOGICAL = frozenset({"__and__", "__or__", "__xor__", "__iand__", "__ior__", "__ixor__"})
_OPERATOR = "add and_ eq floordiv ge getitem gt le lt mod mul ne neg not_ or_ sub truediv"
_PYTHON: dict[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in _OPERATOR.split()},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "sqrt", "trunc")},
    "torch.sym_float": torch.sym_float,
    "torch.sym_int": torch.sym_int,
    "torch.sym_ite": torch.sym_ite,
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
    "torch.sym_not": torch.sym_not,
}

CHECKS = frozenset(
    "torch.ops.aten." + name
    for name in (
        "_assert_async.default",
        "_assert_async.msg",
        "_assert_scalar.default",
        "_assert_tensor_metadata.default",
        "sym_constrain_range.default",
        "sym_constrain_range_for_size.default",
    )
)
"""What an export checks of its inputs; left out, since the model is run on other devices and types too."""

WITHOUT_GRADIENT = "torch.ops.higher_order.wrap_with_set_grad_enabled"
WITH_AUTOCAST = "torch.ops.higher_order.wrap_with_autocast"
_ATEN_PREFIX = "torch.ops.aten."


def resolve(target: str) -> Callable[..., Any]:
    """The function that a node calls. Raises ModelError for all that is not on the list above."""
    known = _PYTHON.get(target)
    if known is not None:
        return known
    name, _, overload = target.removeprefix(_ATEN_PREFIX).partition(".")
    allowed = name in _ATEN or name.removesuffix("_") in _ATEN or name in _LOGICAL
    if target.startswith(_ATEN_PREFIX) and allowed:
        packet = getattr(torch.ops.aten, name, None)
        found = getattr(packet, overload, None)
        if isinstance(found, torch._ops.OpOverload) and _gives_tensors(found):
            return found
    raise ModelError(f"the program calls '{target[:100]}', {_why(target)}")


def _gives_tensors(found: torch._ops.OpOverload) -> bool:
    """Or the size of one. Those on lists and texts are TorchScript's; an output among the arguments would be
    resized."""
    results = str(found._schema).rpartition("->")[2]
    gives = "Tensor" in results or found._schema.name in ("aten::size", "aten::sym_size", "aten::sym_numel")
    return gives and not any(one.is_out for one in found._schema.arguments)


def _why(target: str) -> str:
    if target.startswith("torch.ops.quantized"):
        return "so its weights are quantized: give the model before quantization"
    if target.startswith("torch.ops.higher_order."):
        return "a graph within the graph, which cannot be read: export the model without control flow"
    return (
        "which is not on the list of operators that are run: export the model with PyTorch's own operators, "
        "or give it as config.json and *.safetensors"
    )
