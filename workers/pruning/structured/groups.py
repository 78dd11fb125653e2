"""From units to groups: units that take up the same layers are chosen among each other."""

from collections.abc import Iterable

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
    found = [
        _group(table, parents, (group_of, number), group, places, resolved, attention)
        for group, places in sorted(members.items())
    ]
    groups = _with_names(found, table)
    return DependencyGraph(groups=groups, frozen=frozen)


def _groups(makers: list[int], parents: list[Ids], resolved: Resolved) -> tuple[Ids, Ids]:
    """[ids] The group of each unit (-1: none, or its width is kept) and its number in the group.

    Units made by the same set of layers form a group. One of them frozen, or one alone: the group is left out.
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
    unit_of: tuple[Ids, Ids],
    group: int,
    places: list[int],
    resolved: Resolved,
    attention: set[str],
) -> tuple[Group, list[int]]:
    group_of, number = unit_of
    axes, kind_places = [], []
    for place in places:
        axis, units = table.axes[place], parents[place]
        positions = np.where(group_of[units] == group, number[units], -1)
        axes.append(Axis(axis.tensor, axis.dim, positions, axis.role or "other"))
        kind_places.append(place)
    maker = next(axis for axis in axes if axis.role == "out")
    size = int(maker.units.max()) + 1
    widths = np.bincount(maker.units[maker.units >= 0], minlength=size).astype(np.int64)
    units = np.flatnonzero(group_of == group)
    name = _layer(maker.tensor)
    kind = _kind(table, kind_places, axes, attention, heads=bool(resolved.heads[units].any()))
    return Group(name=name, kind=kind, size=size, axes=tuple(axes), widths=widths), kind_places


def _kind(table: ParameterTable, places: Iterable[int], axes: list[Axis], attention: set[str], *, heads: bool) -> Kind:
    if heads:
        return "heads"
    places = list(places)
    if any(place in table.embeddings for place in places):
        return "hidden"
    matrices = {tensor for tensor, dims in _ranks(table).items() if dims == 2}
    makers = [axis for axis in axes if axis.role == "out" and _is_weight(table, axis.tensor)]
    readers = [axis for axis in axes if axis.role == "in"]
    if any(axis.tensor in attention and axis.tensor in matrices for axis in readers):
        return "hidden"
    if makers and readers and all(axis.tensor in matrices for axis in (*makers, *readers)):
        return "neurons"
    return "channels"


def _is_weight(table: ParameterTable, tensor: str) -> bool:
    return _ranks(table)[tensor] > 1


def _ranks(table: ParameterTable) -> dict[str, int]:
    return table.ranks


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
    return tensor.rpartition(".")[0] or tensor


def _with_names(found: list[tuple[Group, list[int]]], table: ParameterTable) -> tuple[Group, ...]:
    groups, used = [], set()
    for group, _ in found:
        name = _common(group) if group.kind == "heads" else group.name
        name = name or group.name
        if name in used:
            name = group.name
        count, unique = 1, name
        while unique in used:
            count += 1
            unique = f"{name}#{count}"
        used.add(unique)
        groups.append(Group(unique, group.kind, group.size, group.axes, group.widths))
    return tuple(groups)


def _common(group: Group) -> str:
    """The innermost module around all layers that make or read the units."""
    paths = {tuple(_layer(axis.tensor).split(".")) for axis in group.axes if axis.role in ("out", "in")}
    shared = []
    for names in zip(*paths, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)

