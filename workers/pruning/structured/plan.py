"""Which groups lose units, and which units: from scores and a share to a removal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import gcd

import numpy as np
from numpy.typing import NDArray

from schemas.allocation import GlobalAllocation, UniformAllocation
from schemas.method import Structured
from workers.errors import PreflightError
from workers.pruning.structured.graph import DependencyGraph, Group, Removal
from workers.pruning.structured.scores import Scores, normalised

_NAMES_SHOWN = 5
_WORDS = {
    "channels": "channels of convolutions",
    "neurons": "neurons of feed-forward layers",
    "heads": "attention heads",
    "hidden": "a hidden size",
}


@dataclass(frozen=True, eq=False)
class Chosen:
    """The groups that may lose units, in order of the graph, and why each other group or layer stays."""

    groups: tuple[Group, ...]
    reasons: dict[str, str]


def choose_groups(graph: DependencyGraph, method: Structured) -> Chosen:
    """Split the groups by kind, by globs and by the steps that `round_to` allows.

    A glob is compared with the group's name and with all layers that make its units. `exclude` wins where it
    matches any of them: units that several layers make together go or stay together. Raises PreflightError
    where a glob matches nothing, or nothing is left to remove.
    """
    _refuse_missing_kinds(graph, method)
    names = sorted({name for group in graph.groups for name in layers_of(group)} | graph.frozen.keys())
    for field, globs in (
        ("include", method.include),
        ("exclude", method.exclude),
        ("overrides", method.overrides),
    ):
        _refuse_idle_globs(field, globs, names)
    chosen = that_may_shrink(graph, method)
    if not chosen.groups:
        told = "; ".join(f"{name}: {reason}" for name, reason in list(chosen.reasons.items())[:_NAMES_SHOWN])
        raise PreflightError(
            f"no units are left to remove ({told}): widen method.include or method.units, "
            "or narrow method.exclude"
        )
    return chosen


def that_may_shrink(graph: DependencyGraph, method: Structured) -> Chosen:
    """The same split of a model that may have been cut before, where nothing may be left: no refusals."""
    reasons = dict(graph.frozen)
    for group in graph.groups:
        if reason := _reason(group, method):
            reasons[group.name] = reason
    if isinstance(method.allocation, UniformAllocation) and method.allocation.keep_first_and_last:
        # the last layer makes the scores, which never go; a transformer's first layer makes the hidden size
        first = next(iter(graph.groups), None)
        if first is not None and first.kind == "channels":
            reasons.setdefault(first.name, "first layer, kept dense by uniform allocation")
    return Chosen(tuple(group for group in graph.groups if group.name not in reasons), reasons)


def layers_of(group: Group) -> list[str]:
    """The group's name and the layers that make its units, without repetition."""
    makers = [axis.tensor.rpartition(".")[0] for axis in group.axes if axis.role == "out"]
    return list(dict.fromkeys([group.name, *makers]))


def plan(
    groups: Sequence[Group],
    scores: Scores,
    method: Structured,
    share: float,
    *,
    dense_sizes: Mapping[str, int] | None = None,
    progress: float = 1.0,
) -> Removal:
    """The units that go when `share` of them shall be gone: those of the smallest scores.

    Uniform: the same share of each group, rounded down. Global: one ranking of all units by their score over
    their group's mean, each unit counting as one, and no group loses more than the allocation's cap. In both
    the width that stays is then rounded up to a multiple of `round_to` (heads: whole heads), and at least one
    unit stays; a larger share removes the same units and more. `dense_sizes` are the groups' sizes before
    the first round, which share and cap are meant of; `progress` is how much of an override is due.
    """
    for group in groups:
        if np.isnan(scores[group.name]).any():
            raise ValueError(f"scores of '{group.name}' are NaN")
    dense = {group.name: (dense_sizes or {}).get(group.name, group.size) for group in groups}
    given = {group.name: share_of for group in groups if (share_of := override_of(group, method)) is not None}
    counts = {
        group.name: _due(group, given[group.name] * progress, dense[group.name])
        for group in groups
        if group.name in given
    }
    free = [group for group in groups if group.name not in given]
    if isinstance(method.allocation, GlobalAllocation):
        counts |= _ranked(free, scores, share, dense, cap=method.allocation.cap)
    else:
        counts |= {group.name: _due(group, share, dense[group.name]) for group in free}
    removal = {}
    for group in groups:
        gone = group.size - kept_width(group, group.size - counts[group.name], method.round_to)
        if gone:
            removal[group.name] = np.sort(_order(scores[group.name])[:gone])
    return removal


def kept_width(group: Group, kept: int, round_to: int) -> int:
    """`kept` units, one at least, rounded up so that their channels are a multiple of `round_to`."""
    step = step_of(group, round_to)
    return min(group.size, -(-max(kept, 1) // step) * step)


def step_of(group: Group, round_to: int) -> int:
    """How many units go at a time: so many that widths stay multiples of `round_to`; heads one by one."""
    if group.kind == "heads":
        return 1
    return round_to // gcd(round_to, int(group.widths[0]))


def _due(group: Group, share: float, dense: int) -> int:
    """Units to remove now, so that `share` of the dense size is gone; never all."""
    # without the epsilon 0.29 of 100 would be 28
    gone = int(share * dense + 1e-9) - (dense - group.size)
    return max(0, min(gone, group.size - 1))


def _ranked(
    groups: Sequence[Group], scores: Scores, share: float, dense: Mapping[str, int], *, cap: float
) -> dict[str, int]:
    """How many units each group loses in one ranking of them all."""
    total = sum(dense[group.name] for group in groups)
    gone = total - sum(group.size for group in groups)
    comparable = normalised({group.name: scores[group.name] for group in groups})
    values, owners = [], []
    for number, group in enumerate(groups):
        allowed = _due(group, cap, dense[group.name])
        values.append(np.sort(comparable[group.name])[:allowed])
        owners.append(np.full(allowed, number))
    if not values:
        return {}
    order = np.argsort(np.concatenate(values), kind="stable")
    first = order[: max(0, int(share * total + 1e-9) - gone)]
    counts = np.bincount(np.concatenate(owners)[first], minlength=len(groups))
    return {group.name: int(count) for group, count in zip(groups, counts, strict=True)}


def _order(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.argsort(scores, kind="stable")


def override_of(group: Group, method: Structured) -> float | None:
    """The share that `method.overrides` gives the group; None: the allocation decides."""
    names = layers_of(group)
    return next(
        (share for glob, share in method.overrides.items() if any(fnmatchcase(name, glob) for name in names)),
        None,
    )


def _reason(group: Group, method: Structured) -> str | None:
    """Why a group stays whole; None: it may lose units."""
    names = layers_of(group)
    if group.kind not in method.units:
        return f"its units are {group.kind}, which method.units leaves out"
    if excluding := _first_match(names, method.exclude):
        return f"excluded by '{excluding}'"
    if _first_match(names, method.include) is None:
        return "not matched by method.include"
    if group.size == 1:
        return "has a single unit, which stays"
    step = step_of(group, method.round_to)
    if group.size <= step:
        return f"its {group.size} units cannot shrink in steps of {step} (method.round_to)"
    return None


def _first_match(names: Iterable[str], globs: Iterable[str]) -> str | None:
    listed = list(names)
    return next((glob for glob in globs if any(fnmatchcase(name, glob) for name in listed)), None)


def _refuse_missing_kinds(graph: DependencyGraph, method: Structured) -> None:
    """Units that the user names by themselves must exist: heads asked of a CNN are a mistake."""
    present = {group.kind for group in graph.groups}
    if not graph.groups:
        some = "; ".join(f"{name}: {reason}" for name, reason in list(graph.frozen.items())[:_NAMES_SHOWN])
        raise PreflightError(
            f"the model has no units that can be removed ({some}): use pattern 'unstructured'"
        )
    if not present & set(method.units):
        has = " and ".join(_WORDS[kind] for kind in sorted(present))
        raise PreflightError(
            f"method.units asks for {' and '.join(method.units)}, and the model has {has} only: "
            "change method.units"
        )


def _refuse_idle_globs(field: str, globs: Iterable[str], names: Sequence[str]) -> None:
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            some = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
            raise PreflightError(
                f"method.{field}: '{glob}' matches no layer that makes units (there are: {some})"
            )
