"""Sizes that modules keep as Python attributes, brought in line with what a surgery leaves of tensors."""

import copy
import inspect
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers.pytorch_utils import Conv1D

from workers.errors import PreflightError
from workers.pruning.structured.graph import DependencyGraph, Group, Removal
from workers.pruning.structured.layer_sizes import SHAPES, Value, sizes_of_tensors
from workers.pruning.structured.narrow import NARROW, become_narrow, kind_of
from workers.pruning.structured.narrow_windows import FUSED
from workers.pruning.structured.records import Change

Keeps = Mapping[tuple[str, int], NDArray[np.bool_]]

HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "num_query_heads", "heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "kv_heads", "kv_n_heads")
HEAD_WIDTHS = (
    "all_head_size",
    "all_head_dim",
    "inner_dim",
    "split_size",
    "attn_dim",
    "inner_attn_dim",
    "key_attn_dim",
    "val_attn_dim",
)
GROUPINGS = ("num_key_value_groups", "num_kv_groups", "num_queries_per_kv", "n_rep")
NEURONS = (
    "intermediate_size",
    "intermediate_dim",
    "ffn_dim",
    "hidden_features",
    "d_ff",
    "mlp_dim",
    "expert_dim",
)
HIDDEN = ("hidden_size", "hidden_dim", "embed_dim", "d_model", "dim", "n_embd", "num_features", "feature_dim")
STAGES = "hidden_sizes"
CHANNELS = ("width", "in_channels", "out_channels", "in_chs", "out_chs", "expand_chs")
CACHES = ("attention_bias_cache",)
"""What modules remember of their tensors from forward to forward: emptied."""
KEYS_OR_VALUES = ("k", "v", "key", "value", "k_proj", "v_proj", "k_lin", "v_lin", "kv", "kv_proj", "wk", "wv")

OF_TENSORS = frozenset(
    {
        "in_channels",
        "out_channels",
        "groups",
        "in_features",
        "out_features",
        "in1_features",
        "in2_features",
        "nf",
        "nx",
        "num_features",
        "num_channels",
        "num_groups",
        "normalized_shape",
        "num_parameters",
        "embedding_dim",
        "num_embeddings",
        "embed_dim",
        "num_heads",
        "kdim",
        "vdim",
    }
)
MAY_CHANGE = OF_TENSORS | {
    *HEADS,
    *KV_HEADS,
    *HEAD_WIDTHS,
    *GROUPINGS,
    *NEURONS,
    *HIDDEN,
    *CHANNELS,
    *SHAPES,
    STAGES,
    "kind",
}
"""No other attribute is ever written, whatever a file says."""


def changes(module: nn.Module, keeps: Keeps, graph: DependencyGraph, removal: Removal) -> Iterator[Change]:
    """The attributes that must change when `keeps` is cut from `module`, which is still as it was.

    Raises PreflightError where a module cannot have the sizes that are left.
    """
    modules = dict(module.named_modules(remove_duplicate=False))
    found: dict[tuple[str, str], Value] = {}
    for path, own in _by_module(keeps).items():
        found.update({(path, name): value for name, value in sizes_of_tensors(modules[path], own, path)})
    for group in (group for group in graph.groups if len(removal.get(group.name, ()))):
        for path, attribute, value in _of_group(group, keeps, modules):
            found.setdefault((path, attribute), value)
    for path, part in modules.items():
        if isinstance(part, nn.MultiheadAttention):
            found.update({(path, name): value for name, value in _of_attention(part, keeps, path)})
        elif kind_of(part) is not None and _is_narrowed(part, keeps, path):
            found[path, "kind"] = NARROW
    for (path, attribute), value in found.items():
        if _get(modules[path], attribute) != value:
            yield Change(module=path, attribute=attribute, value=value)


def check(module: nn.Module, wanted: Iterable[Change]) -> None:
    """Raises ValueError where a change names nothing that `module` has, or something that is no size."""
    modules = dict(module.named_modules(remove_duplicate=False))
    for change in wanted:
        if change.attribute.removeprefix("config.") not in MAY_CHANGE:
            raise ValueError(f"'{change.attribute}' is no size of a module")
        old = _get(modules[change.module], change.attribute) if change.module in modules else None
        if type(old) is not type(change.value) or (change.attribute == "kind" and change.value != NARROW):
            raise ValueError(f"the model has no '{change.attribute}' in module '{change.module}' to change")


def apply(module: nn.Module, wanted: Iterable[Change]) -> None:
    """Write the new values; a config that other modules share is copied first."""
    modules = dict(module.named_modules(remove_duplicate=False))
    for part in modules.values():
        for name in CACHES:
            if isinstance(cache := vars(part).get(name), dict):
                cache.clear()
    for change in wanted:
        part, value = modules[change.module], change.value
        if change.attribute == "kind":
            become_narrow(part)
        elif change.attribute.startswith("config."):
            part.config = copy.copy(part.config)
            new = list(value) if isinstance(value, tuple) else value
            setattr(part.config, change.attribute.removeprefix("config."), new)
        else:
            setattr(part, change.attribute, value)


def _get(part: nn.Module, attribute: str) -> object:
    if attribute == "kind":
        return kind_of(part)
    owner = getattr(part, "config", None) if attribute.startswith("config.") else part
    value = getattr(owner, attribute.removeprefix("config."), None)
    return tuple(value) if isinstance(value, list | tuple) else value


def _by_module(keeps: Keeps) -> dict[str, dict[tuple[str, int], NDArray[np.bool_]]]:
    grouped: dict[str, dict[tuple[str, int], NDArray[np.bool_]]] = {}
    for (tensor, dim), keep in keeps.items():
        path, _, local = tensor.rpartition(".")
        # weight norm keeps scale and direction there; the direction has the shape of the weight
        owner, parametrized, name = path.partition(".parametrizations.")
        if parametrized and local in ("original", "original1"):
            path, local = owner, name
        grouped.setdefault(path, {})[local, dim] = keep
    return grouped


def _of_group(
    group: Group, keeps: Keeps, modules: Mapping[str, nn.Module]
) -> Iterator[tuple[str, str, Value]]:
    """Sizes that the modules round a group's layers hold: (module, attribute, new value)."""
    if group.kind == "heads":
        yield from _of_heads(group, keeps, modules)
    elif group.kind == "channels":
        yield from _of_channels(group, keeps, modules)
    else:
        first = next((axis for axis in group.axes if axis.role == "out"), group.axes[0])
        names = NEURONS if group.kind == "neurons" else HIDDEN
        keep = keeps[first.tensor, first.dim]
        for path in _around(group, depth=2 if group.kind == "neurons" else 99):
            for name in names:
                if vars(modules.get(path, nn.Module())).get(name) == group.size:
                    yield path, name, int(keep.sum()) * group.size // len(keep)
        if group.kind == "hidden":
            yield from _of_stages(group, int(keep.sum()) * group.size // len(keep), modules)


def _of_channels(
    group: Group, keeps: Keeps, modules: Mapping[str, nn.Module]
) -> Iterator[tuple[str, str, Value]]:
    """Blocks that split their channels at a width of their own: one that an axis within them has."""
    for path in _around(group, depth=2):
        part = modules.get(path)
        if part is None or hasattr(part, "weight"):
            continue
        sizes = {group.size: Fraction(group.size - _gone(group, keeps), group.size)}
        for axis in group.axes:
            if axis.tensor.startswith(f"{path}.") and axis.units.min() >= 0:
                keep = keeps[axis.tensor, axis.dim]
                sizes[len(keep)] = Fraction(int(keep.sum()), len(keep))
        for name in CHANNELS:
            value = _read_size(part, name)
            if value in sizes:
                yield path, name, _scaled(value, sizes[value], f"{path}.{name}")


def _gone(group: Group, keeps: Keeps) -> int:
    axis = group.axes[0]
    return len(np.unique(axis.units[(axis.units >= 0) & ~keeps[axis.tensor, axis.dim]]))


def _of_stages(group: Group, new: int, modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, str, Value]]:
    """A forward that reshapes by the widths of a model's stages, which its config lists."""
    for path in _around(group, depth=99):
        if path in modules and STAGES in _names_in_forward(modules[path]):
            sizes = _get(modules[path], f"config.{STAGES}")
            if isinstance(sizes, tuple) and sizes.count(group.size) == 1:
                yield path, f"config.{STAGES}", tuple(new if one == group.size else one for one in sizes)


def _around(group: Group, *, depth: int) -> list[str]:
    """Names of the modules that hold the group's tensors, and of those round them, `depth` in all."""
    paths: dict[str, None] = {}
    for axis in group.axes:
        path = axis.tensor.rpartition(".")[0]
        for _ in range(depth):
            paths[path] = None
            if not path:
                break
            path = path.rpartition(".")[0]
    return list(paths)


def _of_heads(
    group: Group, keeps: Keeps, modules: Mapping[str, nn.Module]
) -> Iterator[tuple[str, str, Value]]:
    """Numbers of heads shrink as the rows of the query (or fused) layer, those of key and value as theirs."""
    for path in _around(group, depth=2):
        part = modules.get(path)
        if part is None or isinstance(part, nn.Linear | Conv1D | nn.Embedding):
            continue
        queries, keys = _shares(group, keeps, path)
        if queries is None:
            continue
        if keys is None:
            # layers of their own that the group does not touch keep all of their heads
            keys = Fraction(1) if any(hasattr(part, name) for name in KEYS_OR_VALUES) else queries
        for names, share in (
            (HEADS, queries),
            (HEAD_WIDTHS, queries),
            (KV_HEADS, keys),
            (GROUPINGS, queries / keys),
        ):
            for name in names:
                value = _read_size(part, name)
                if value is not None:
                    attribute = name if name in vars(part) else f"config.{name}"
                    yield path, attribute, _scaled(value, share, f"{path}.{name}")


def _read_size(part: nn.Module, name: str) -> int | None:
    """An attribute, or a field of the config that the module's forward reads at each call."""
    value = vars(part).get(name)
    if value is None and name in _names_in_forward(part):
        value = getattr(getattr(part, "config", None), name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _names_in_forward(part: nn.Module) -> tuple[str, ...]:
    code = getattr(inspect.unwrap(type(part).forward), "__code__", None)
    return code.co_names if code is not None else ()


def _shares(group: Group, keeps: Keeps, path: str) -> tuple[Fraction | None, Fraction | None]:
    """Share of rows that stay in the query (or fused) layers inside `path`, and in key and value layers."""
    queries = keys = None
    prefix = f"{path}." if path else ""
    for axis in sorted(group.axes, key=lambda axis: axis.role != "out"):
        if axis.role not in ("out", "other") or not axis.tensor.startswith(prefix):
            continue
        keep = keeps[axis.tensor, axis.dim]
        share = Fraction(int(keep.sum()), len(keep))
        layer = axis.tensor.removeprefix(prefix).split(".")[0]
        if layer in KEYS_OR_VALUES:
            keys = share if keys is None else keys
        elif queries is None:
            queries = share
    return queries, keys


def _scaled(value: int, share: Fraction, name: str) -> int:
    new = value * share
    if new.denominator != 1 or new < 1:
        raise PreflightError(
            f"'{name}' is {value}, of which {share} would stay, no whole number: exclude this attention"
        )
    return int(new)


def _is_narrowed(part: nn.Module, keeps: Keeps, path: str) -> bool:
    """Whether query, key and value of torchvision's attention are no longer as wide as its input."""
    name = next(name for name in FUSED if hasattr(part, name))
    fused = getattr(part, name)
    rows = keeps.get((f"{path}.{name}.weight", 0), np.ones(fused.out_features, dtype=bool))
    read = keeps.get((f"{path}.{name}.weight", 1), np.ones(fused.in_features, dtype=bool))
    return int(rows.sum()) != 3 * int(read.sum())


def _of_attention(part: nn.MultiheadAttention, keeps: Keeps, path: str) -> Iterator[tuple[str, Value]]:
    """torch's own attention takes its input's width for heads · head_dim: other sizes need our forward."""
    prefix = f"{path}." if path else ""
    rows = next(
        (
            keeps[prefix + name, 0].sum() // parts
            for name, parts in (("in_proj_weight", 3), ("q_proj_weight", 1))
            if (prefix + name, 0) in keeps
        ),
        part.head_dim * part.num_heads,
    )
    outputs = keeps.get((f"{prefix}out_proj.weight", 0))
    embed = part.embed_dim if outputs is None else int(outputs.sum())
    if int(rows) == part.head_dim * part.num_heads and embed == part.embed_dim:
        return
    if int(rows) % part.head_dim:
        raise PreflightError(
            f"'{path}' would keep {rows} of {part.head_dim * part.num_heads} attention channels, which is no "
            f"whole number of heads of {part.head_dim}: exclude this attention"
        )
    yield "num_heads", int(rows) // part.head_dim
    yield "embed_dim", embed
    for name, tensor in (("kdim", "k_proj_weight"), ("vdim", "v_proj_weight")):
        read = keeps.get((prefix + tensor, 1))
        yield (
            name,
            (
                embed
                if part.in_proj_weight is not None
                else int(read.sum())
                if read is not None
                else getattr(part, name)
            ),
        )
    if int(rows) != embed:
        yield "kind", NARROW
