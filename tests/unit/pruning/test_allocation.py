"""How many weights of each layer go."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.unit.pruning.cuts import ERK, LAMP, UNIFORM, WEIGHTS, cut_module, masks, nudged, zeros
from tests.unit.pruning.small import small_module
from workers.errors import PreflightError
from workers.pruning.allocation import (
    erk_zeros,
    overridden_zeros,
    override_that_fits,
    shared_out,
    uniform_zeros,
)
from workers.pruning.layers import Layer, prunable_layers


def layers_of(*parts: nn.Module) -> list[Layer]:
    return prunable_layers(nn.ModuleList(parts))


def test_fractions_are_rounded_by_largest_remainder():
    assert shared_out(10, [1, 1, 1], [0] * 3, [99] * 3) == [4, 3, 3]
    assert shared_out(5, [15, 25, 60], [0] * 3, [99] * 3) == [1, 1, 3]  # 0.75, 1.25, 3.0


def test_what_would_leave_its_bounds_stays_on_them_and_the_rest_is_solved_again():
    assert shared_out(30, [1, 1, 1], [0, 0, 0], [4, 99, 99]) == [4, 13, 13]
    assert shared_out(30, [1, 1, 1], [20, 0, 0], [99, 99, 99]) == [20, 5, 5]


def test_layers_without_a_weight_take_what_the_others_cannot():
    assert shared_out(7, [0, 1], [0, 0], [9, 4]) == [3, 4]
    assert shared_out(6, [0, 0], [0, 0], [4, 8]) == [2, 4]


@pytest.mark.parametrize("total", [2, 9])
def test_a_total_outside_the_bounds_is_refused(total: int):
    with pytest.raises(ValueError, match="not between 3 and 8"):
        shared_out(total, [1, 1], [1, 2], [4, 4])


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.floats(0, 1e6), st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=8
    ),
    data=st.data(),
)
def test_any_bounds_are_kept_and_any_total_met(parts, data):
    weights = [part[0] for part in parts]
    least = [part[1] for part in parts]
    most = [part[1] + part[2] for part in parts]
    total = data.draw(st.integers(sum(least), sum(most)))

    amounts = shared_out(total, weights, least, most)

    assert sum(amounts) == total
    assert all(low <= one <= high for low, one, high in zip(least, amounts, most, strict=True))


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 10_000), min_size=1, max_size=10), share=st.floats(0, 1))
def test_uniform_shares_differ_by_less_than_one_weight(sizes: list[int], share: float):
    total = round(share * sum(sizes))

    amounts = shared_out(total, sizes, [0] * len(sizes), sizes)

    exact = total / sum(sizes)
    assert all(abs(one - exact * size) < 1 + 1e-6 for one, size in zip(amounts, sizes, strict=True))


def test_uniform_counts_zeros_that_are_there():
    layers = layers_of(nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 10))

    assert uniform_zeros(layers, 120, [60, 0, 0]) == [60, 30, 30]


def test_erk_keeps_in_proportion_to_the_sum_of_dimensions():
    # 250 of 500 stay: 250 · 20 / 70 = 71.43 of 100, and 250 · 50 / 70 = 178.57 of 400
    assert erk_zeros(layers_of(nn.Linear(10, 10), nn.Linear(10, 40)), 250, [0, 0]) == [29, 221]


def test_erk_counts_the_kernel():
    # sums of dimensions 4 + 2 + 3 + 3 = 12 and 24: of 72 + 128 weights 60 stay, 20 and 40
    layers = layers_of(nn.Conv2d(2, 4, 3), nn.Linear(16, 8))

    assert erk_zeros(layers, 140, [0, 0]) == [52, 88]


def test_a_layer_that_erk_would_grow_stays_dense_and_the_rest_is_solved_again():
    # 210 of 420 stay; the small layer's part would be 210 · 12 / 62 = 40.6 of its 20
    assert erk_zeros(layers_of(nn.Linear(10, 2), nn.Linear(10, 40)), 210, [0, 0]) == [0, 210]


def test_erk_makes_small_layers_denser_than_large_ones():
    module = small_module()

    cut_module(module, 0.7, allocation=ERK)

    shares = [k / n for k, n in zip(zeros(module), (72, 1728, 72), strict=True)]
    assert sum(zeros(module)) == round(0.7 * WEIGHTS)
    assert shares[1] > max(shares[0], shares[2])


def test_lamp_cuts_the_lowest_scores_of_all_layers():
    module = nn.ModuleList([nn.Linear(3, 1, bias=False), nn.Linear(2, 1, bias=False)])
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 2, 3]]))  # 1/14, 4/13, 1
        module[1].weight.copy_(torch.tensor([[50.0, 30]]))  # 1, 9/34

    cut_module(module, 3 / 5, allocation=LAMP)

    assert module[0].weight.tolist() == [[0, 0, 3]]
    assert module[1].weight.tolist() == [[50, 0]]


def test_lamp_does_not_depend_on_the_scale_of_a_layer():
    first, second = small_module(), small_module()
    with torch.no_grad():
        second[3].weight.mul_(1024)

    for module in (first, second):
        cut_module(module, 0.8, allocation=LAMP)

    assert all(map(torch.equal, masks(first), masks(second)))


def test_lamp_leaves_every_layer_a_weight():
    module = small_module()
    with torch.no_grad():
        module[0].weight.mul_(1e-6)

    cut_module(module, 1 - 3 / WEIGHTS, allocation=LAMP)

    assert zeros(module) == [71, 1727, 71]


@pytest.mark.parametrize("cap", [0.55, 0.7])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.5455])
def test_no_layer_loses_more_than_the_cap_and_the_total_is_exact(share: float, cap: float):
    module = small_module()
    with torch.no_grad():
        module[0].weight.mul_(1e-3)
        module[8].weight.mul_(1e-2)

    result = cut_module(module, share, allocation={"kind": "global", "cap": cap})

    assert result.zeros == sum(zeros(module)) == round(share * WEIGHTS)
    assert zeros(module)[0] == int(cap * 72)
    assert all(k <= cap * n for k, n in zip(zeros(module), (72, 1728, 72), strict=True))


def test_a_cap_that_nothing_reaches_changes_nothing():
    first, second = small_module(), small_module()

    cut_module(first, 0.5)
    cut_module(second, 0.5, allocation={"kind": "global", "cap": 0.99})

    assert all(map(torch.equal, masks(first), masks(second)))


def test_a_cap_below_the_goal_is_refused():
    with pytest.raises(PreflightError, match=r"allocation\.cap 0\.6 at most"):
        cut_module(small_module(), 0.7, allocation={"kind": "global", "cap": 0.6})


@pytest.mark.parametrize(
    "allocation", [{"kind": "global"}, {"kind": "global", "cap": 0.9}, UNIFORM, ERK, LAMP]
)
def test_an_override_is_met_and_the_others_make_up_for_it(allocation: dict):
    module = small_module()

    result = cut_module(module, 0.6, allocation=allocation, overrides={"0": 0.25, "8": 0.5})

    assert zeros(module) == [18, round(0.6 * WEIGHTS) - 18 - 36, 36]
    assert result.zeros == round(0.6 * WEIGHTS)


def test_the_first_override_that_matches_counts():
    found = overridden_zeros(prunable_layers(small_module()), {"0": 0.5, "*": 0.25}, 486, progress=1)

    assert found == {"0": 36, "3": 432, "8": 18}


def test_an_override_that_names_no_pruned_layer_is_refused():
    with pytest.raises(PreflightError, match=r"method\.overrides: '8' matches no prunable layer"):
        cut_module(small_module(), 0.5, exclude=["8"], overrides={"8": 0.2})


def test_overrides_grow_with_the_progress_of_the_job():
    module = small_module()
    spec = {"overrides": {"0": 0.5}}

    cut_module(module, 0.3, **spec | {"progress": 0.5})
    halfway = zeros(module)[0]
    nudged(module, seed=1)
    cut_module(module, 0.6, **spec | {"progress": 1.0})

    assert halfway == 18
    assert zeros(module)[0] == 36


def test_an_override_below_what_is_zero_already_leaves_those_zeros():
    module = small_module()
    with torch.no_grad():
        module[0].weight.view(-1)[:40] = 0

    result = cut_module(module, 0.5, overrides={"0": 0.25})

    assert zeros(module)[0] == 40
    assert result.zeros == sum(zeros(module)) == round(0.5 * WEIGHTS)


def test_overrides_that_go_beyond_the_goal_are_refused():
    with pytest.raises(PreflightError, match=r"method\.overrides alone zero 1,555 weights, and 936"):
        cut_module(small_module(), 0.5, overrides={"3": 0.9})


@pytest.mark.parametrize(("share", "fits"), [(0.25, 0.5), (0.5, 1.0), (0.9, 1.0)])
def test_overrides_fit_as_far_as_the_cut_has_room(share: float, fits: float):
    layers = layers_of(nn.Linear(10, 10), nn.Linear(10, 10))

    assert override_that_fits(layers, {"*": 0.5}, share) == pytest.approx(fits)
    assert override_that_fits(layers, {}, share) == 1.0
    assert override_that_fits(layers, {"0": 0.0}, share) == 1.0


def test_overrides_that_leave_too_little_to_cut_are_refused():
    with pytest.raises(PreflightError, match=r"the other layers have 144"):
        cut_module(small_module(), 0.5, overrides={"3": 0.1})


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0.001, 0.999))
def test_overrides_that_name_every_layer_may_differ_from_the_goal_by_rounding_only(share: float):
    module = small_module()

    result = cut_module(module, share, overrides={"*": share})

    assert result.zeros == sum(zeros(module)) == round(share * WEIGHTS)
