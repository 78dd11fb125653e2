"""When a report says that a goal was reached."""

import pytest

from schemas.goal import Goal
from workers.publish import is_reached


@pytest.mark.parametrize("removed", [0.8, 0.79995, 0.9])
def test_a_sparsity_is_reached_to_the_last_zeros(removed: float):
    assert is_reached(Goal(sparsity=0.8), removed)


def test_a_sparsity_that_is_missed_by_a_thousandth_is_not_reached():
    assert not is_reached(Goal(sparsity=0.8), 0.799)


@pytest.mark.parametrize("name", ["size", "macs", "params", "latency", "heads", "neurons"])
def test_what_comes_in_steps_or_is_measured_is_reached_within_two_points(name: str):
    goal = Goal.model_validate({name: 0.5})

    assert is_reached(goal, 0.485)
    assert not is_reached(goal, 0.47)
