"""From a goal to the share of units that meets it."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from workers.errors import PreflightError
from workers.pruning.structured.graph import Removal
from workers.pruning.structured.scores import Scores

TOLERANCE = 0.02
"""How far below the goal the answer may be, as a share of it."""
CLOSE = 0.002
"""Closer is not looked for."""
HALVINGS = 12
_ROUNDING = 1e-9
"""Of shares: what remains comes as 1 - (1 - goal)."""

Measure = Callable[[Removal], float]
Planner = Callable[[float], Removal]


def reach(measure: Measure, planner: Planner, remaining: float) -> Removal:
    """A removal after which `measure` is at most `remaining`, and within 2 % of it where widths allow.

    `measure` gives what remains as a share of the dense model and falls as units go; `planner` maps a share
    of units, 0 to 1, to a removal, and a larger share to the same units and more. First the share is
    bisected; where one step of it jumps over the goal (many groups change width at once), some groups take
    the step and the others do not. At most 14 + log2(groups) calls of `measure`, mostly fewer than 10. Raises
    PreflightError where even everything that may go is too little.
    """
    best = planner(1.0)
    left = measure(best)
    if left > remaining + _ROUNDING:
        raise PreflightError(
            f"goal: {remaining:.1%} shall remain, and {left:.1%} remain when all that may go is gone: "
            "raise the goal, raise allocation.cap, lower method.round_to, or exclude less"
        )
    worse: Removal = {}
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        if left >= (1 - CLOSE) * remaining:
            return best
        share = (low + high) / 2
        found = planner(share)
        if _same(found, best):
            high = share
        elif _same(found, worse):
            low = share
        elif (value := measure(found)) <= remaining:
            best, left, high = found, value, share
        else:
            worse, low = found, share
    return best if left >= (1 - CLOSE) * remaining else _mixed(measure, worse, best, remaining)


def trimmed(
    measure: Measure, removal: Removal, steps: Mapping[str, int], scores: Scores, remaining: float
) -> Removal:
    """`removal`, which meets the goal, with as many units put back as it can be met without.

    Groups that `steps` does not name stay as they are. A group's units come back `steps[group]` at a time,
    those of the highest scores first; of all groups the one whose step ends nearest to the goal. Calls
    `measure` once for each group and step that comes back.
    """
    while measure(removal) < (1 - CLOSE) * remaining:
        tried = [_less(removal, name, steps[name], scores[name]) for name in removal if name in steps]
        left = [(measure(less), number) for number, less in enumerate(tried)]
        enough = [(value, number) for value, number in left if value <= remaining]
        if not enough:
            return removal
        removal = tried[max(enough)[1]]
    return removal


def _less(removal: Removal, name: str, step: int, scores: NDArray[np.float64]) -> Removal:
    """Without the `step` highest-scored units of one group."""
    gone = removal[name]
    order = np.argsort(scores[gone], kind="stable")
    kept = np.sort(gone[order[: max(0, len(gone) - step)]])
    return (
        {**removal, name: kept} if len(kept) else {at: units for at, units in removal.items() if at != name}
    )


def _mixed(measure: Measure, worse: Removal, best: Removal, remaining: float) -> Removal:
    """The most groups as in `worse` (too large), the others as in `best`, such that the goal is met."""
    differing = [name for name in best if len(best[name]) != len(worse.get(name, ()))]

    def restored(count: int) -> Removal:
        mixture = {**best, **{name: worse.get(name) for name in differing[:count]}}
        return {name: units for name, units in mixture.items() if units is not None and len(units)}

    low, high = 0, len(differing)
    while high - low > 1:
        middle = (low + high) // 2
        if measure(restored(middle)) <= remaining:
            low = middle
        else:
            high = middle
    return restored(low)


def _same(one: Removal, other: Removal) -> bool:
    """By widths: of two removals by one planner the larger holds the smaller."""
    return one.keys() == other.keys() and all(len(one[name]) == len(other[name]) for name in one)
