"""Every verdict, from samples with a known answer."""

import numpy as np
import pytest

from schemas.benchmark import Verdict
from workers.benchmark.stats import UNSTABLE_ABOVE, Interval, judge, noise_of, speedup


def samples(median: float, spread: float, *, seed: int, rounds: int = 20) -> np.ndarray:
    return median * (1 + spread * np.random.default_rng(seed).standard_normal(rounds))


def verdict(dense, control, pruned) -> Verdict:
    return judge(speedup(dense, pruned, seed=0), noise_of(speedup(dense, control, seed=0)))


def test_constant_latencies_give_their_exact_ratio_and_no_width():
    interval = speedup(np.full(20, 3.0), np.full(20, 2.0), seed=0)

    assert interval == Interval(1.5, 1.5, 1.5)


def test_is_the_ratio_of_the_medians_not_of_the_means():
    slow = np.array([2.0, 2.0, 2.0, 2.0, 100.0])

    interval = speedup(slow, np.ones(5), seed=0)

    assert interval.value == 2.0


def test_same_seed_gives_the_same_interval():
    slow, fast = samples(2, 0.1, seed=1), samples(1, 0.1, seed=2)

    first, again, other = (speedup(slow, fast, seed=seed) for seed in (0, 0, 1))

    assert first == again
    assert first != other


def test_load_that_slows_both_arms_of_a_round_cancels_out():
    load = np.random.default_rng(3).uniform(1, 4, 20)

    paired = speedup(1.2 * load, 1.0 * load, seed=0)
    unpaired = speedup(1.2 * load, 1.0 * load[::-1], seed=0)

    assert paired.low == pytest.approx(1.2)
    assert paired.high == pytest.approx(1.2)
    assert unpaired.high - unpaired.low > 0.2


def test_interval_covers_the_truth_in_about_95_of_100_experiments():
    truth, covered = 1.25, 0
    for number in range(300):
        dense, pruned = samples(truth, 0.05, seed=2 * number), samples(1, 0.05, seed=2 * number + 1)
        interval = speedup(dense, pruned, seed=number)
        covered += interval.low <= truth <= interval.high

    # 0.95 with three standard errors of 300 draws, and the small-sample bias of a bootstrapped median
    assert 0.90 <= covered / 300 <= 0.995


@pytest.mark.parametrize(
    ("low", "high", "noise"), [(0.98, 1.02, 0.02), (1.01, 1.03, 0.03), (0.95, 0.99, 0.05), (1, 1, 0)]
)
def test_noise_is_the_farthest_that_the_control_reaches_from_1(low, high, noise):
    assert noise_of(Interval((low + high) / 2, low, high)) == pytest.approx(noise)


@pytest.mark.parametrize(
    ("low", "high", "noise", "expected"),
    [
        (1.05, 1.10, 0.02, Verdict.faster),
        (1.05, 1.10, 0.06, Verdict.no_difference),
        (1.02, 1.10, 0.02, Verdict.no_difference),
        (0.99, 1.50, 0.00, Verdict.no_difference),
        (0.90, 0.95, 0.02, Verdict.slower),
        (0.90, 0.95, 0.06, Verdict.no_difference),
        (0.90, 0.98, 0.02, Verdict.no_difference),
        (0.50, 2.00, 0.02, Verdict.no_difference),
        (3.00, 3.10, 0.11, Verdict.unstable),
        (3.00, 3.10, UNSTABLE_ABOVE, Verdict.faster),
    ],
)
def test_claims_a_difference_only_outside_of_the_noise(low, high, noise, expected):
    assert judge(Interval((low + high) / 2, low, high), noise) is expected


def test_much_faster_model_is_faster():
    dense, control, pruned = samples(2, 0.02, seed=1), samples(2, 0.02, seed=2), samples(1, 0.02, seed=3)

    assert verdict(dense, control, pruned) is Verdict.faster
    assert verdict(pruned, pruned, dense) is Verdict.slower


def test_machine_that_disagrees_with_itself_is_unstable_whatever_was_measured():
    dense, control, pruned = samples(2, 0.02, seed=1), samples(2.4, 0.02, seed=2), samples(1, 0.02, seed=3)

    assert verdict(dense, control, pruned) is Verdict.unstable


def test_model_against_itself_is_hardly_ever_judged_different():
    wrong = 0
    for number in range(200):
        dense, control, same = (samples(1, 0.03, seed=3 * number + arm) for arm in range(3))
        wrong += verdict(dense, control, same) is not Verdict.no_difference

    assert wrong <= 4
