"""Goal, floor, method and schedule: refusals, and the curves."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.goal import Floor, Goal
from schemas.method import Method
from schemas.schedule import Gradual, Iterative, OneShot, Schedule, Search


def message(kind: Any, value: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return str(caught.value)


@pytest.mark.parametrize("sparsity", [0, -0.1, 0.9991, 1, float("nan"), float("inf"), "much"])
def test_refuses_a_sparsity_out_of_range(sparsity: Any):
    assert message(Goal, {"sparsity": sparsity}).splitlines()[1] == "sparsity"


@pytest.mark.parametrize("goal", [{}, {"sparsity": 0.5, "macs": 0.5}])
def test_refuses_a_goal_that_is_not_exactly_one(goal: dict[str, float]):
    assert "exactly one of sparsity, params, macs" in message(Goal, goal)


@pytest.mark.parametrize("name", ["params", "macs", "size", "latency", "heads", "neurons"])
def test_other_goals_say_what_remains(name: str):
    goal = Goal.model_validate({name: 0.3})

    assert (goal.name, goal.value, goal.removed) == (name, 0.3, pytest.approx(0.7))
    assert message(Goal, {name: 1}).splitlines()[1] == name


def test_a_sparsity_is_what_goes():
    assert (Goal(sparsity=0.8).name, Goal(sparsity=0.8).removed) == ("sparsity", 0.8)


@pytest.mark.parametrize("floor", [{}, {"max_drop": 0.1, "min_value": 0.5}])
def test_refuses_a_floor_that_is_not_exactly_one(floor: dict[str, float]):
    assert "exactly one" in message(Floor, floor)


@pytest.mark.parametrize(
    "floor", [{"max_drop": -0.1}, {"max_drop": 1.1}, {"min_value": -1}, {"min_value": 2}]
)
def test_refuses_a_floor_out_of_range(floor: dict[str, float]):
    assert message(Floor, floor).splitlines()[1] == next(iter(floor))


def test_a_floor_is_relative_to_the_dense_metric_or_absolute():
    assert Floor(max_drop=0.01).threshold(0.9) == pytest.approx(0.89)
    assert Floor(max_drop=0).threshold(0.9) == 0.9
    assert Floor(min_value=0.7).threshold(0.9) == 0.7
    assert Floor(min_value=0).threshold(0.9) == 0


def test_a_method_without_a_pattern_is_unstructured():
    made = TypeAdapter(Method).validate_python({"criterion": {"kind": "random"}})

    assert made.pattern == "unstructured"


@pytest.mark.parametrize(
    ("pattern", "criterion"),
    [
        ("unstructured", "bn_scale"),
        ("semi_structured", "movement"),
        ("structured", "wanda"),
    ],
)
def test_refuses_a_criterion_of_another_pattern(pattern: str, criterion: str):
    told = message(Method, {"pattern": pattern, "criterion": {"kind": criterion}})

    assert f"'{criterion}'" in told
    assert "'magnitude'" in told


@pytest.mark.parametrize("kind", ["wanda", "sparsegpt"])
def test_criteria_that_compare_within_a_layer_are_spread_evenly_by_default(kind: str):
    made = TypeAdapter(Method).validate_python({"criterion": {"kind": kind}})

    assert made.allocation.kind == "uniform"


@pytest.mark.parametrize("allocation", ["global", "lamp"])
def test_refuses_to_rank_layers_by_scores_that_do_not_compare(allocation: str):
    told = message(Method, {"criterion": {"kind": "wanda"}, "allocation": {"kind": allocation}})

    assert "use 'uniform', 'erk' or 'sensitivity'" in told


def test_refuses_a_pattern_that_keeps_all():
    assert "n (4) must be less than m (4)" in message(Method, {"pattern": "semi_structured", "n": 4, "m": 4})


@pytest.mark.parametrize(
    "method",
    [
        {"pattern": "diagonal"},
        {"criterion": {"kind": "magic"}},
        {"criterion": {"kind": "magnitude", "norm": 3}},
        {"criterion": {}},
        {"allocation": {"kind": "fair"}},
        {"include": []},
        {"include": [""]},
        {"exclude": ["x" * 257]},
        {"exclude": ["x"] * 65},
    ],
)
def test_refuses_a_method_that_nobody_knows(method: dict[str, Any]):
    place = message(Method, method).splitlines()[1].removeprefix("unstructured.")

    assert place.split(".")[0] == next(iter(method)) or method == {"pattern": "diagonal"}


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "iterative", "rounds": 0},
        {"kind": "iterative", "rounds": 101},
        {"kind": "iterative", "curve": "square"},
        {"kind": "one_shot", "rounds": 3},
        {"kind": "forever"},
        {"rounds": 3},
    ],
)
def test_refuses_a_schedule_that_cannot_be_followed(schedule: dict[str, Any]):
    told = message(Schedule, schedule)
    assert "rounds" in told or "curve" in told or "tag" in told


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("linear", [0.2, 0.4, 0.6, 0.8]),
        ("cubic", [0.4625, 0.7, 0.7875, 0.8]),
        ("geometric", [0.3313, 0.5528, 0.7009, 0.8]),
    ],
)
def test_the_curves_have_their_shapes(curve: Any, expected: list[float]):
    schedule = Iterative(rounds=4, curve=curve)

    reached = [schedule.removed_after(done, 0.8) for done in (1, 2, 3, 4)]

    assert reached == pytest.approx(expected, abs=1e-4)


@given(
    rounds=st.integers(1, 100),
    curve=st.sampled_from(["linear", "cubic", "geometric"]),
    final=st.floats(0.001, 0.999),
)
def test_every_curve_rises_to_exactly_the_goal(rounds: int, curve: Any, final: float):
    schedule = Iterative(rounds=rounds, curve=curve)

    reached = [schedule.removed_after(done, final) for done in range(1, rounds + 1)]

    assert reached == sorted(reached)
    assert reached[0] > 0
    assert reached[-1] == final


def test_one_shot_is_there_after_its_only_round():
    assert (OneShot().rounds_in_all(), OneShot().removed_after(1, 0.8)) == (1, 0.8)


@pytest.mark.parametrize("schedule", [{"begin": 0.8, "end": 0.5}, {"begin": 0.7}])
def test_refuses_a_gradual_cut_that_ends_before_it_begins(schedule: dict[str, float]):
    assert "must be less than end" in message(Schedule, {"kind": "gradual", **schedule})


def test_a_gradual_cut_rises_from_nothing_to_the_goal_between_begin_and_end():
    schedule = Gradual(begin=0.2, end=0.6, curve="linear")

    reached = [schedule.removed_at(step, 10, 0.8) for step in range(10)]

    assert reached == pytest.approx([0, 0, 0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8])


def test_a_search_halves_what_lies_between_held_and_broken():
    search = Search(first=0.5, most=0.9, resolution=0.1)

    assert search.next_share(0.0, None) == 0.5
    assert search.next_share(0.5, None) == 0.75
    assert search.next_share(0.75, None) == pytest.approx(0.875)
    assert search.next_share(0.875, None) == 0.9
    assert search.next_share(0.9, None) is None
    assert search.next_share(0.5, 0.75) == 0.625
    assert search.next_share(0.0, 0.5) == 0.25
    assert search.next_share(0.5, 0.6) is None


def test_refuses_a_search_that_begins_beyond_its_end():
    assert "must not be more than most" in message(Schedule, {"kind": "search", "first": 0.9, "most": 0.5})
