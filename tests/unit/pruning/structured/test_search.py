"""A goal is met within two percent, from below, in few measurements."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.allocation import GlobalAllocation, UniformAllocation
from schemas.method import Structured
from tests.unit.pruning.structured import graphs
from workers.errors import PreflightError
from workers.pruning.structured.graph import Group, Removal
from workers.pruning.structured.plan import plan
from workers.pruning.structured.search import TOLERANCE, reach, trimmed


class Scale:
    """Measures by the weights of chained layers, each [width, width before], and counts how often."""

    def __init__(self, groups: list[Group]) -> None:
        self._sizes = {group.name: group.size for group in groups}
        self.calls = 0

    def __call__(self, removal: Removal) -> float:
        self.calls += 1
        return self._weights(removal) / self._weights({})

    def _weights(self, removal: Removal) -> int:
        widths = [3, *(size - len(removal.get(name, ())) for name, size in self._sizes.items()), 10]
        return sum(one * other for one, other in pairwise(widths))


def chain(*sizes: int, kind: str = "channels") -> list[Group]:
    return [
        graphs.group(f"layer{number}", kind, graphs.layer(f"layer{number}", size))
        for number, size in enumerate(sizes)
    ]


def planner(groups: list[Group], **options: object):
    generator = np.random.default_rng(0)
    scores = {group.name: generator.random(group.size) + 0.1 for group in groups}
    method = Structured(**options)
    return lambda share: plan(groups, scores, method, share)


UNIFORM = {"allocation": UniformAllocation(keep_first_and_last=False)}


@pytest.mark.parametrize("goal", [0.2, 0.4, 0.5, 0.75, 0.9])
@pytest.mark.parametrize(
    "options", [UNIFORM, {"allocation": GlobalAllocation(cap=0.95)}], ids=["uniform", "global"]
)
@pytest.mark.parametrize("round_to", [1, 8])
def test_the_goal_is_met_within_two_percent_from_below(
    goal: float, options: dict[str, object], round_to: int
):
    groups = chain(64, 64, 128, 128, 256, 256, 512, 512)
    measure = Scale(groups)

    removal = reach(measure, planner(groups, round_to=round_to, **options), goal)

    assert measure.calls <= 18
    assert (1 - TOLERANCE) * goal <= measure(removal) <= goal


def test_equal_layers_that_would_all_step_at_once_step_one_by_one():
    groups = chain(*[16] * 60, kind="neurons")
    measure = Scale(groups)

    removal = reach(measure, planner(groups, round_to=8, **UNIFORM), 0.6)

    assert {len(units) for units in removal.values()} == {8}
    assert 0 < len(removal) < 60
    assert (1 - TOLERANCE) * 0.6 <= measure(removal) <= 0.6


def test_where_widths_are_too_coarse_the_answer_is_the_largest_below_the_goal():
    groups = chain(4)
    measure = Scale(groups)

    removal = reach(measure, planner(groups, round_to=1, **UNIFORM), 0.6)

    assert measure(removal) == 0.5


def test_a_goal_that_nothing_reaches_is_refused_with_what_can_be_reached():
    groups = chain(8, 8)

    with pytest.raises(PreflightError, match=r"10.0% shall remain, and 40.5% remain when all that may go"):
        reach(Scale(groups), planner(groups, round_to=4, **UNIFORM), 0.1)


def test_a_goal_that_needs_all_that_may_go_takes_it():
    groups = chain(8, 8)
    measure, steps = Scale(groups), planner(groups, round_to=4, **UNIFORM)
    least = measure(steps(1.0))

    assert measure(reach(measure, steps, least)) == least


@given(st.floats(0.01, 0.99))
def test_what_remains_is_not_refused_for_the_last_digit_of_a_float(least: float):
    everything: Removal = {"layer0": np.arange(4)}

    found = reach(lambda removal: least if removal else 1.0, lambda _: everything, 1 - (1 - least))

    assert found == everything


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(2, 64), min_size=1, max_size=8),
    st.floats(0.05, 0.95),
    st.sampled_from([1, 4, 8]),
    st.booleans(),
)
def test_any_answer_is_at_or_below_the_goal_and_gives_no_more_than_it_must(sizes, goal, round_to, uniform):
    groups = chain(*sizes)
    options = UNIFORM if uniform else {"allocation": GlobalAllocation()}
    measure, steps = Scale(groups), planner(groups, round_to=round_to, **options)
    least = measure(steps(1.0))

    if least > goal:
        with pytest.raises(PreflightError):
            reach(measure, steps, goal)
        return
    measure.calls = 0
    removal = reach(measure, steps, goal)

    assert measure.calls <= 18
    assert measure(removal) <= goal
    assert all(len(removal.get(group.name, ())) < group.size for group in groups)
    met = [left for share in np.linspace(0, 1, 21) if (left := measure(steps(share))) <= goal]
    assert measure(removal) >= 0.997 * max(met)


def test_units_come_back_step_by_step_until_the_goal_is_only_just_met():
    groups = chain(32, 64, 64)
    scale = Scale(groups)
    scores = {group.name: np.arange(group.size, dtype=float) for group in groups}
    removal = {group.name: np.arange(group.size // 2) for group in groups}

    found = trimmed(scale, removal, dict.fromkeys(removal, 8), scores, 0.5)

    assert scale(removal) < 0.3
    assert 0.4 < scale(found) <= 0.5
    for units in found.values():
        assert len(units) % 8 == 0
        assert (units == np.arange(len(units))).all(), "the lowest scores stay gone"


def test_a_group_that_has_no_step_is_left_as_it_is():
    groups = chain(32, 64)
    scores = {group.name: np.arange(group.size, dtype=float) for group in groups}
    removal = {group.name: np.arange(16) for group in groups}

    found = trimmed(Scale(groups), removal, {"layer1": 8}, scores, 0.99)

    assert len(found["layer0"]) == 16
    assert len(found.get("layer1", ())) < 16


def test_what_only_just_meets_the_goal_loses_nothing():
    groups = chain(32, 64)
    scale = Scale(groups)
    scores = {group.name: np.arange(group.size, dtype=float) for group in groups}
    removal = {"layer0": np.arange(8)}

    assert trimmed(scale, removal, {"layer0": 8}, scores, scale(removal)) == removal
