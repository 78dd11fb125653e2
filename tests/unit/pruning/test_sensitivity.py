"""Curves of single layers, and the knapsack over them."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.report import Curve
from tests.unit.pruning.cuts import WEIGHTS, calibrated, cut_module, masks, zeros
from tests.unit.pruning.small import small_module
from workers.evaluate import metric_of
from workers.pruning.layers import prunable_layers
from workers.pruning.sensitivity import sensitivity_curves, zeros_at_least_loss

SHARES = (0.25, 0.5, 0.75)


def curve(*metrics: float, name: str = "a", shares=SHARES) -> Curve:
    return Curve(name=name, shares=list(shares), metrics=list(metrics))


def measured(module, **options) -> list[Curve]:
    options = {"evaluate": lambda: 0.0, "on_layer": lambda *_: None} | options
    return sensitivity_curves(prunable_layers(module), SHARES, **options)


def test_each_layer_is_cut_alone_to_each_share():
    module = small_module()
    seen: list[list[int]] = []

    def evaluate() -> float:
        seen.append(zeros(module))
        return 1 - len(seen) / 100

    curves = measured(module, evaluate=evaluate)

    assert seen == [
        *([round(share * 72), 0, 0] for share in SHARES),
        *([0, round(share * 1728), 0] for share in SHARES),
        *([0, 0, round(share * 72)] for share in SHARES),
    ]
    assert [one.name for one in curves] == ["0", "3", "8"]
    assert curves[1].shares == list(SHARES)
    assert curves[1].metrics == pytest.approx([0.96, 0.95, 0.94])


def test_the_weights_are_back_bit_by_bit():
    module = small_module()
    with torch.no_grad():
        module[3].weight[0, 0, 0, :2] = torch.tensor([-0.0, 1e-42])
    before = [layer.weight.detach().clone().view(torch.int32) for layer in prunable_layers(module)]

    measured(module)

    after = [layer.weight.detach().view(torch.int32) for layer in prunable_layers(module)]
    assert all(map(torch.equal, before, after))


def test_the_weights_are_back_when_the_work_is_stopped_in_the_middle():
    module = small_module()
    before = module[0].weight.clone()

    def stop() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(module, evaluate=stop)

    assert torch.equal(module[0].weight, before)


def test_progress_is_told_by_layer():
    told = []

    measured(small_module(), on_layer=lambda done, of: told.append((done, of)))

    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_layer_that_bears_more_loses_more():
    tough, weak = curve(0.9, 0.9, 0.9), curve(0.8, 0.5, 0.2)

    assert zeros_at_least_loss([tough, weak], [100, 100], [0, 0], 75, whole=0.9) == [75, 0]
    assert zeros_at_least_loss([tough, weak], [100, 100], [0, 0], 100, whole=0.9) == [75, 25]


def test_a_step_is_taken_in_part_so_that_the_total_is_exact():
    curves = [curve(0.9, 0.8, 0.5), curve(0.7, 0.4, 0.1)]

    assert zeros_at_least_loss(curves, [100, 100], [0, 0], 41, whole=0.9) == [41, 0]


def test_layers_that_lose_nothing_share_the_zeros():
    curves = [curve(0.9, 0.9, 0.9)] * 2

    assert zeros_at_least_loss(curves, [100, 300], [0, 0], 200, whole=0.9) == [50, 150]


def test_past_the_last_measured_share_all_layers_lose_the_same_part_of_the_rest():
    curves = [curve(0.9, 0.8, 0.7), curve(0.2, 0.1, 0.0)]

    assert zeros_at_least_loss(curves, [100, 100], [0, 0], 180, whole=0.9) == [90, 90]


def test_a_dip_that_a_larger_share_makes_good_is_crossed_not_avoided():
    dip, steady = curve(0.5, 0.9, 0.9), curve(0.85, 0.8, 0.75)

    assert zeros_at_least_loss([dip, steady], [100, 100], [0, 0], 25, whole=0.9) == [0, 25]


def test_zeros_that_are_there_stay_and_their_shares_are_not_bought_again():
    curves = [curve(0.9, 0.9, 0.9), curve(0.9, 0.6, 0.3)]

    counts = zeros_at_least_loss(curves, [100, 100], [10, 40], 130, whole=0.9)

    assert counts == [75, 55]


LOSSES = st.lists(st.integers(0, 20), min_size=3, max_size=3)


@settings(max_examples=100, deadline=None)
@given(drops=st.lists(LOSSES, min_size=1, max_size=3), data=st.data())
def test_no_choice_of_measured_points_with_the_same_total_loses_less(drops, data):
    """The curves are convex here, so the hull is the curve; all grids of points are tried."""
    curves = []
    for drop in drops:
        falls = torch.tensor(sorted(drop), dtype=torch.float64).cumsum(0) / 100
        curves.append(curve(*(1 - falls).tolist()))
    sizes = [8] * len(curves)
    choice = data.draw(st.tuples(*[st.integers(0, 3)] * len(curves)))
    total = 2 * sum(choice)

    counts = zeros_at_least_loss(curves, sizes, [0] * len(curves), total, whole=1.0)

    assert sum(counts) == total
    points = [[0.0, *(1 - metric for metric in one.metrics)] for one in curves]
    least = min(
        sum(points[place][step] for place, step in enumerate(steps))
        for steps in product(range(4), repeat=len(curves))
        if 2 * sum(steps) == total
    )
    reached = sum(_between(line, count / 2) for line, count in zip(points, counts, strict=True))
    assert reached <= least + 1e-9


def _between(line: list[float], at: float) -> float:
    first = min(int(at), 2)
    return line[first] + (at - first) * (line[first + 1] - line[first])


@settings(max_examples=100, deadline=None)
@given(data=st.data(), layers=st.integers(1, 5))
def test_any_curves_meet_any_total(data: st.DataObject, layers: int):
    metrics = st.lists(st.floats(0, 1), min_size=3, max_size=3)
    curves = [curve(*data.draw(metrics)) for _ in range(layers)]
    sizes = [data.draw(st.integers(1, 50)) for _ in curves]
    there = [data.draw(st.integers(0, size)) for size in sizes]
    total = data.draw(st.integers(sum(there), sum(sizes)))

    counts = zeros_at_least_loss(curves, sizes, there, total, whole=data.draw(st.floats(0, 1)))

    assert sum(counts) == total
    assert all(low <= one <= high for low, one, high in zip(there, counts, sizes, strict=True))


@pytest.mark.parametrize("kind", ["magnitude", "taylor", "wanda"])
def test_a_cut_by_sensitivity_spares_the_layer_that_matters(kind: str):
    module = small_module()

    def evaluate() -> float:
        return 1 - zeros(module)[8 // 4] / 72  # only the last layer matters

    result = cut_module(
        module,
        0.7,
        evaluate=evaluate,
        criterion={"kind": kind},
        allocation={"kind": "sensitivity", "shares": SHARES},
    )

    assert result.zeros == sum(zeros(module)) == round(0.7 * WEIGHTS)
    assert zeros(module)[2] == 0
    assert [one.name for one in result.curves] == ["0", "3", "8"]


def test_cuts_by_measured_accuracy_only_grow():
    module = small_module()
    calibration = calibrated(module)

    def evaluate() -> float:
        return metric_of(calibration.model, calibration.bundle, batch_size=40, on_batch=lambda *_: None)

    before = masks(module)
    for number, share in enumerate((0.4, 0.8), start=1):
        method = {"allocation": {"kind": "sensitivity", "shares": SHARES}}
        cut_module(module, share, number=number, evaluate=evaluate, **method)

        assert all(bool((old <= new).all()) for old, new in zip(before, masks(module), strict=True))
        assert sum(zeros(module)) == round(share * WEIGHTS)
        before = masks(module)
