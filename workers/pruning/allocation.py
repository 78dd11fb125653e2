"""How many weights of each layer go, so that the total is exact."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from math import floor

from workers.errors import PreflightError
from workers.pruning.layers import Layer
from workers.pruning.scores.elementwise import magnitude
from workers.pruning.scores.lamp import lamp
from workers.pruning.scores.score import flat_weights
from workers.pruning.scoring import Scores, scored, zeros_of
from workers.pruning.threshold import Scored, kth_smallest, zeros_by_layer

Group = tuple[list[Layer], int]
"""Layers that are ranked together, and how many of their weights are zero afterwards."""

_ROUNDING = 1e-9  # so that a cap of 0.29 of 100 weights is 29
_HALVINGS = 100  # of the factor between weights and amounts: more than a float64 can tell apart


def shared_out(total: int, weights: Sequence[float], least: Sequence[int], most: Sequence[int]) -> list[int]:
    """Whole numbers that sum to `total`, in proportion to `weights`, each between `least` and `most`.

    What would leave its bounds is put on them and the rest is solved again; fractions are rounded by largest
    remainder, of equal ones the first is rounded up. Raises ValueError where the bounds do not allow `total`.
    """
    if not sum(least) <= total <= sum(most):
        raise ValueError(f"{total} is not between {sum(least)} and {sum(most)}")
    quotas = _quotas(total, weights if any(weights) else most, least, most)
    amounts = [max(floor(quota), low) for quota, low in zip(quotas, least, strict=True)]
    order = sorted(range(len(quotas)), key=lambda place: amounts[place] - quotas[place])
    missing = total - sum(amounts)
    while missing > 0:
        for place in order:
            if missing > 0 and amounts[place] < most[place]:
                amounts[place] += 1
                missing -= 1
    return amounts


def _quotas(total: int, weights: Sequence[float], least: Sequence[int], most: Sequence[int]) -> list[float]:
    """The same before rounding. Bounds are found by bisection, and what lies within them is exact."""
    bounded = list(zip(weights, least, most, strict=True))

    def at(factor: float) -> list[float]:
        return [min(max(weight * factor, low), high) for weight, low, high in bounded]

    low, high = 0.0, 1.0
    while sum(at(high)) < total and high < 2.0**900:
        low, high = high, high * 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) <= total else (low, middle)
    quotas = at(low)
    free = [place for place, (weight, down, up) in enumerate(bounded) if down < weight * low < up]
    spare = total - sum(quota for place, quota in enumerate(quotas) if place not in set(free))
    for place in free:
        quotas[place] = spare * (weights[place] / sum(weights[one] for one in free))
    return quotas


def uniform_zeros(layers: Sequence[Layer], total: int, zeros: Sequence[int]) -> list[int]:
    """`total` zeros, the same share of each layer; `zeros` are there already and stay."""
    sizes = [layer.weight.numel() for layer in layers]
    return shared_out(total, sizes, zeros, sizes)


def erk_zeros(layers: Sequence[Layer], total: int, zeros: Sequence[int]) -> list[int]:
    """`total` zeros, so that each layer keeps in proportion to the sum of its weight's dimensions: density
    goes with Σ dims / Π dims (Evci et al. 2020). A layer that would keep more than it has stays dense."""
    sizes = [layer.weight.numel() for layer in layers]
    sums = [float(sum(layer.weight.shape)) for layer in layers]
    alive = [size - gone for size, gone in zip(sizes, zeros, strict=True)]
    kept = shared_out(sum(sizes) - total, sums, [0] * len(sizes), alive)
    return [size - stays for size, stays in zip(sizes, kept, strict=True)]


def lamp_zeros(layers: Sequence[Layer], total: int) -> list[int]:
    """`total` zeros, by one ranking of all layers' LAMP scores (Lee et al. 2021); 4 bytes a weight."""
    if total == 0:
        return [0] * len(layers)
    ranked = [Scored(layer.name, lamp(flat_weights(layer.weight)), magnitude) for layer in layers]
    return zeros_by_layer(ranked, total, kth_smallest(ranked, total))


def overridden_zeros(
    layers: Sequence[Layer], overrides: Mapping[str, float], total: int, *, progress: float
) -> dict[str, int]:
    """Zeros, by name, of the layers that a glob of `overrides` names; the first match counts.

    `progress` is how far this round is on the way to the goal, 1 at the end: the shares grow with it. `total`
    zeros are to be made in all. Raises PreflightError where the other layers cannot make what is left.
    """
    found = {name: round(wanted * progress) for name, wanted in _asked(layers, overrides).items()}
    sizes = {layer.name: layer.weight.numel() for layer in layers}
    room = sum(size for name, size in sizes.items() if name not in found)
    asked = sum(found.values())
    _refuse_impossible(asked, total, room, slack=len(found))
    meant = min(max(asked, total - room), total)
    if meant == asked:
        return found
    most = [sizes[name] for name in found]  # rounding took one too many, or left one over
    counts = shared_out(meant, list(found.values()), [0] * len(found), most)
    return dict(zip(found, counts, strict=True))


def override_that_fits(layers: Sequence[Layer], overrides: Mapping[str, float], share: float) -> float:
    """How much of the overrides a cut to `share` has room for: 1 where it has for all."""
    asked = sum(_asked(layers, overrides).values())
    total = share * sum(layer.weight.numel() for layer in layers)
    return min(1.0, total / asked) if asked else 1.0


def _asked(layers: Sequence[Layer], overrides: Mapping[str, float]) -> dict[str, float]:
    """Zeros at the end, by name, of the layers that a glob names; the first match counts."""
    asked = {}
    for layer in layers:
        glob = next((one for one in overrides if fnmatchcase(layer.name, one)), None)
        if glob is not None:
            asked[layer.name] = overrides[glob] * layer.weight.numel()
    return asked


def _refuse_impossible(asked: int, total: int, room: int, *, slack: int) -> None:
    if asked > total + slack:
        raise PreflightError(
            f"method.overrides alone zero {asked:,} weights, and {total:,} are to go in all: lower them or "
            "raise the goal"
        )
    if total - asked > room + slack:
        raise PreflightError(
            f"besides method.overrides {total - asked:,} weights have to go, and the other layers have "
            f"{room:,}: raise the overrides or lower the goal (of a search: schedule.most)"
        )


def ranked_groups(layers: Sequence[Layer], scores: Scores, total: int, *, cap: float) -> list[Group]:
    """`total` zeros in one ranking of all layers, none of which may lose more than the share `cap`.

    A layer that would is cut to the cap, and the others are ranked again. Raises PreflightError where caps do
    not allow `total`.
    """
    if cap == 1:
        return [(list(layers), total)]
    limits = {
        layer.name: max(floor(cap * layer.weight.numel() + _ROUNDING), zeros_of([layer])) for layer in layers
    }
    if sum(limits.values()) < total:
        raise PreflightError(
            f"with method.allocation.cap {cap:g} at most {sum(limits.values()):,} weights can go, and "
            f"{total:,} have to: raise the cap or lower the goal (of a search: schedule.most)"
        )
    free, capped = list(layers), list[Group]()
    while total > 0 and (over := _over(free, scores, total, limits)):
        capped += [([layer], limits[layer.name]) for layer in over]
        total -= sum(limits[layer.name] for layer in over)
        free = [layer for layer in free if layer not in over]
    return [*capped, (free, total)] if free else capped


def _over(layers: Sequence[Layer], scores: Scores, total: int, limits: Mapping[str, int]) -> list[Layer]:
    ranked = scored(layers, scores)
    counts = zeros_by_layer(ranked, total, kth_smallest(ranked, total))
    return [layer for layer, count in zip(layers, counts, strict=True) if count > limits[layer.name]]
