"""Goal, floor, method and schedule: refusals, and the curves."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.pruning import Allocation, Criterion, Floor, Goal, Iterative, Method, OneShot, Schedule


def message(kind: Any, value: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return str(caught.value)


@pytest.mark.parametrize("sparsity", [0, -0.1, 0.9991, 1, float("nan"), float("inf"), "much", None])
def test_refuses_a_sparsity_out_of_range(sparsity: Any):
    assert message(Goal, {"sparsity": sparsity}).splitlines()[1] == "sparsity"


@pytest.mark.parametrize("name", ["params", "macs", "size", "latency"])
def test_refuses_other_goals_with_a_remedy(name: str):
    assert "use 'sparsity'" in message(Goal, {name: 0.5})
    assert "use 'sparsity'" in message(Goal, {"sparsity": 0.5, name: 0.5})


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


@pytest.mark.parametrize("pattern", ["semi_structured", "structured"])
def test_refuses_patterns_that_are_not_delivered_yet(pattern: str):
    assert "use 'unstructured'" in message(Method, {"pattern": pattern})


@pytest.mark.parametrize(
    "kind",
    ["taylor", "snip", "fisher", "hessian", "sparsegpt", "wanda", "movement", "bn_scale", "fpgm"],
)
def test_refuses_criteria_that_are_not_delivered_yet(kind: str):
    text = message(Criterion, {"kind": kind})

    assert f"criterion '{kind}' is not available" in text
    assert "use 'magnitude' or 'random'" in text


@pytest.mark.parametrize("kind", ["erk", "lamp", "sensitivity"])
def test_refuses_allocations_that_are_not_delivered_yet(kind: str):
    assert "use 'global' or 'uniform'" in message(Allocation, {"kind": kind})


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
    assert message(Method, method).splitlines()[1].split(".")[0] == next(iter(method))


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

    reached = [schedule.sparsity_after(done, 0.8) for done in (1, 2, 3, 4)]

    assert reached == pytest.approx(expected, abs=1e-4)


@given(
    rounds=st.integers(1, 100),
    curve=st.sampled_from(["linear", "cubic", "geometric"]),
    final=st.floats(0.001, 0.999),
)
def test_every_curve_rises_to_exactly_the_goal(rounds: int, curve: Any, final: float):
    schedule = Iterative(rounds=rounds, curve=curve)

    reached = [schedule.sparsity_after(done, final) for done in range(1, rounds + 1)]

    assert reached == sorted(reached)
    assert reached[0] > 0
    assert reached[-1] == final


def test_one_shot_is_there_after_its_only_round():
    assert (OneShot().rounds_in_all(), OneShot().sparsity_after(1, 0.8)) == (1, 0.8)
