"""Which unit numbers mean the same unit: unions, and rules that decide once the whole model was seen."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from workers.pruning.structured.labels import FIXED, Ids, compressed, in_parts, varying


@dataclass(eq=False)
class Units:
    """Everything learned in one forward about unit numbers 0 (`FIXED`) … `size` - 1."""

    size: int
    where: str = ""
    """What is running now, for the reasons: `conv in layer1.0`."""
    single: set[int] = field(default_factory=set)
    """First numbers of axes that the code splits into one head: (width) to (1, width)."""
    _pairs: list[tuple[Ids, Ids]] = field(default_factory=list)
    _frozen: list[tuple[Ids, str]] = field(default_factory=list)
    _heads: list[Ids] = field(default_factory=list)
    _whole: list[Ids] = field(default_factory=list)
    _even: list[tuple[Ids, int]] = field(default_factory=list)
    _shared: list[tuple[Ids, Ids]] = field(default_factory=list)

    def unite(self, one: Ids, other: Ids) -> None:
        """Position by position, broadcast: the same unit."""
        if one is not other:
            self._pairs.append((one, other))

    def unite_along(self, ids: Ids, axis: int) -> None:
        """All positions along `axis` are one unit."""
        if ids.shape[axis] > 1:
            self._pairs.append((ids, ids.take([0], axis)))

    def freeze(self, ids: Ids, reason: str) -> None:
        """None of these units can go."""
        self._frozen.append((ids, f"{reason} ({self.where})" if self.where else reason))

    def fixed(self, ids: Ids, axis: int, reason: str) -> None:
        """`axis` must keep its size: all positions along it are one unit; nothing else left, it is frozen."""
        if varying(ids) == (axis,):
            self.freeze(ids, reason)
        else:
            self.unite_along(ids, axis)

    def heads(self, ids: Ids) -> None:
        """These units are heads of an attention."""
        self._heads.append(ids)

    def factors(self, ids: Ids) -> None:
        """What goes must leave a full rectangle: in the end the units may vary along one axis only.

        Where they still vary along several, the leading one is given up: the same position in each goes.
        """
        if len(varying(ids)) > 1:
            self._whole.append(ids)

    def even(self, ids: Ids, axis: int, parts: int) -> None:
        """`axis` is cut into equal `parts` by the code: the same position in each part goes together."""
        if ids.shape[axis] > 1 and parts > 1:
            self._even.append((in_parts(ids, axis, parts), axis))

    def shared(self, ids: Ids, parameter: Ids) -> None:
        """A parameter used alike by every head: united with `ids`, unless these turn out to be heads."""
        self._shared.append((ids, parameter))

    def resolve(self) -> "Resolved":
        """The components of everything above, and which of them are frozen or heads."""
        parent = merged(np.arange(self.size, dtype=np.int64), self._pairs)
        while more := self._unsettled(parent):
            parent = merged(parent, more)
        reasons = {}
        for ids, reason in reversed(self._all_frozen(parent)):
            reasons.update(dict.fromkeys(np.unique(parent[ids]).tolist(), reason))
        reasons.setdefault(int(parent[FIXED]), "joined with positions that no layer makes")
        heads = np.zeros(self.size, dtype=np.bool_)
        for ids in self._heads:
            heads[parent[ids]] = True
        return Resolved(parent=parent, reasons=reasons, heads=heads)

    def _unsettled(self, parent: Ids) -> list[tuple[Ids, Ids]]:
        """Unions that the rules still ask for, given those made so far."""
        more = []
        for ids in self._whole:
            unit = compressed(parent[ids])
            for axis in varying(unit)[:-1]:
                first = unit.take([0], axis)
                more.append((unit, first))
                unit = first
        for ids, axis in self._even:
            unit = parent[ids]
            first = unit.take([0], axis)
            if (unit != first).any():
                more.append((unit, first))
        for ids, parameter in self._shared:
            unit, other = compressed(parent[ids]), parent[parameter]
            if _meet(unit, other) and (unit != other).any():
                more.append((unit, other))
        return more

    def _all_frozen(self, parent: Ids) -> list[tuple[Ids, str]]:
        frozen = list(self._frozen)
        for ids, parameter in self._shared:
            if not _meet(compressed(parent[ids]), parent[parameter]):
                frozen.append((parameter, "every head uses the same numbers"))
        return frozen


@dataclass(frozen=True, eq=False)
class Resolved:
    """Units after all unions."""

    parent: Ids
    """[ids] The smallest number of each number's unit."""
    reasons: dict[int, str]
    """Frozen units, by smallest number."""
    heads: NDArray[np.bool_]
    """[ids] Whether the unit with this smallest number is a head."""


def _meet(unit: Ids, other: Ids) -> bool:
    return any(left > 1 and right > 1 for left, right in zip(unit.shape, other.shape, strict=True))


def merged(parent: Ids, pairs: list[tuple[Ids, Ids]]) -> Ids:
    """`parent` (each number's unit) after uniting the two sides of every pair: hook the larger, then jump."""
    if not pairs:
        return parent
    sides = [np.broadcast_arrays(one, other) for one, other in pairs]
    left = np.concatenate([one.ravel() for one, _ in sides])
    right = np.concatenate([other.ravel() for _, other in sides])
    while True:
        left, right = parent[left], parent[right]
        apart = left != right
        if not apart.any():
            return parent
        left, right = left[apart], right[apart]
        parent = parent.copy()
        np.minimum.at(parent, np.maximum(left, right), np.minimum(left, right))
        while ((jump := parent[parent]) != parent).any():
            parent = jump
