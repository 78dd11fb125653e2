"""From units to groups: units that take up the same layers are chosen among each other."""

from dataclasses import replace

import numpy as np

from workers.pruning.structured.graph import Axis, DependencyGraph, Group, Kind
from workers.pruning.structured.labels import Ids
from workers.pruning.structured.parameters import ParameterAxis, ParameterTable
from workers.pruning.structured.units import Resolved


def graph_of(table: ParameterTable, resolved: Resolved) -> DependencyGraph:
    """The groups whose units can go, and a reason for every layer that keeps its width."""
    parents = [resolved.parent[axis.start : axis.start + axis.size] for axis in table.axes]
    makers = [place for place, axis in enumerate(table.axes) if axis.role == "out" and axis.learned]
    group_of, number = _groups(makers, parents, resolved)
    members: dict[int, list[int]] = {}
    for place, units in enumerate(parents):
        for group in np.unique(group_of[units]).tolist():
            if group >= 0:
                members.setdefault(group, []).append(place)
    frozen = _reasons(makers, table, parents, resolved, group_of)
    attention = {table.axes[place].tensor for place in makers if _makes_heads(parents[place], resolved)}
    found = []
    for group, places in sorted(members.items()):
        mine = group_of == group
        one = _group(table, parents, (mine, number), places, attention)
        found.append(replace(one, kind="heads") if resolved.heads[mine].any() else one)
    return DependencyGraph(groups=_with_names(found), frozen=frozen)


def _groups(makers: list[int], parents: list[Ids], resolved: Resolved) -> tuple[Ids, Ids]:
    """[ids] The group of each unit (-1: none, or its width is kept) and its number in the group.

    Units made by the same set of layers form a group. One of them frozen, or one alone: it is left out.
    """
    size = len(resolved.parent)
    marks = np.random.default_rng(0).integers(1, 2**63, size=len(makers), dtype=np.uint64)
    signature = np.zeros(size, dtype=np.uint64)
    order: list[Ids] = []
    for mark, place in zip(marks, makers, strict=True):
        units, first = np.unique(parents[place], return_index=True)
        signature[units] += mark
        order.append(units[np.argsort(first)])
    frozen = np.zeros(size, dtype=np.bool_)
    frozen[list(resolved.reasons)] = True
    group_of, number = np.full(size, -1, dtype=np.int64), np.full(size, -1, dtype=np.int64)
    known: dict[int, int] = {}
    seen = np.zeros(size, dtype=np.bool_)
    for units in order:
        fresh = units[~seen[units]]
        seen[fresh] = True
        for value in dict.fromkeys(signature[fresh].tolist()):
            mine = fresh[signature[fresh] == value]
            if value in known:
                continue
            known[value] = len(known)
            if len(mine) > 1 and not frozen[mine].any():
                group_of[mine] = known[value]
                number[mine] = np.arange(len(mine))
    return group_of, number


def _makes_heads(units: Ids, resolved: Resolved) -> bool:
    """Whether an axis holds heads of several rows each (not one number for each head)."""
    return bool(resolved.heads[units].any()) and len(np.unique(units)) < len(units)


def _group(
    table: ParameterTable,
    parents: list[Ids],
    members: tuple[Ids, Ids],
    places: list[int],
    attention: set[str],
) -> Group:
    """One group, the layer that makes it first. `members`: [ids] whether it is one of them, its number."""
    mine, number = members
    first = next((place for place in places if _is_matrix(table.axes[place])), places[0])
    places = [first, *(place for place in places if place != first)]
    axes = []
    for place in places:
        axis, units = table.axes[place], parents[place]
        axes.append(
            Axis(axis.tensor, axis.dim, np.where(mine[units], number[units], -1), axis.role or "other")
        )
    maker = next(axis for axis in axes if axis.role == "out")
    widths = np.bincount(maker.units[maker.units >= 0]).astype(np.int64)
    kind = _kind(table, places, axes, attention)
    return Group(name=_layer(maker.tensor), kind=kind, size=len(widths), axes=tuple(axes), widths=widths)


def _is_matrix(axis: ParameterAxis) -> bool:
    return axis.role == "out" and axis.learned and axis.rank > 1


def _kind(table: ParameterTable, places: list[int], axes: list[Axis], attention: set[str]) -> Kind:
    """What the group is, unless heads: `attention` names the layers that make heads."""
    makers = [axis.tensor for axis in axes if axis.role == "out"]
    readers = [axis.tensor for axis in axes if axis.role == "in"]
    if table.embeddings & set(places) or (set(readers) & attention) - table.filters:
        return "hidden"
    if readers and not table.filters & {*makers, *readers}:
        return "neurons"
    return "channels"


def _reasons(
    makers: list[int], table: ParameterTable, parents: list[Ids], resolved: Resolved, group_of: Ids
) -> dict[str, str]:
    frozen: dict[str, str] = {}
    for place in makers:
        units = parents[place]
        kept = units[group_of[units] < 0]
        if not len(kept):
            continue
        layer = _layer(table.axes[place].tensor)
        reasons = [resolved.reasons[unit] for unit in np.unique(kept).tolist() if unit in resolved.reasons]
        reason = reasons[0] if reasons else "all of it is one unit"
        frozen.setdefault(layer, reason)
    return frozen


def _layer(tensor: str) -> str:
    """The module that a tensor belongs to; a parameter of the model itself stands for itself."""
    layer, parametrized, _ = tensor.partition(".parametrizations.")
    return layer if parametrized else tensor.rpartition(".")[0] or tensor


def _with_names(found: list[Group]) -> tuple[Group, ...]:
    """The groups under names of their own: heads after the module around them, repeats with a number."""
    groups: dict[str, Group] = {}
    for group in found:
        around = _around(group) if group.kind == "heads" else ""
        name = around if around and around not in groups else group.name
        count, unique = 1, name
        while unique in groups:
            count += 1
            unique = f"{name}#{count}"
        groups[unique] = replace(group, name=unique)
    return tuple(groups.values())


def _around(group: Group) -> str:
    """The innermost module around all layers that make or read the units."""
    paths = [_layer(axis.tensor).split(".") for axis in group.axes if axis.role in ("out", "in")]
    shared = []
    for names in zip(*paths, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)
