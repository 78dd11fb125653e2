"""Seeded runs on a CPU are equal bit by bit."""

import random

import numpy as np
import torch
from torch import Tensor

from schemas.fine_tune import FineTune, Sgd
from schemas.method import Unstructured
from tests.unit.pruning.small import loaded, small_bundle, small_module
from workers.determinism import round_seed, seed_everything
from workers.fine_tune import fine_tune
from workers.pruning.cut import cut
from workers.pruning.layers import choose, prunable_layers

ROUNDS = (0.3, 0.6, 0.8)


def run_rounds(state: dict[str, Tensor], numbers: range, seed: int = 0) -> dict[str, Tensor]:
    """Prune and fine-tune rounds `numbers` from the weights in `state`; the weights afterwards."""
    model, bundle = loaded(small_module(seed=99)), small_bundle()
    model.module.load_state_dict(state)
    choice = choose(prunable_layers(model.module), Unstructured())
    spec = FineTune(batch_size=16, optimizer=Sgd(lr=0.05))
    for number in numbers:
        cut(
            choice,
            Unstructured(),
            ROUNDS[number - 1],
            calibration=None,
            evaluate=None,
            movement=None,
            seed=seed,
            number=number,
        )
        fine_tune(
            model,
            bundle,
            choice,
            spec,
            epochs=2,
            seed=seed,
            number=number,
            teacher=None,
            on_step=lambda _: None,
            evaluate_epoch=None,
        )
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_two_runs_with_one_seed_end_with_the_same_bits():
    dense = small_module().state_dict()

    first = run_rounds(dense, range(1, 4))
    torch.rand(17)
    second = run_rounds(dense, range(1, 4))

    assert same(first, second)


def test_another_seed_ends_elsewhere():
    dense = small_module().state_dict()

    assert not same(run_rounds(dense, range(1, 4)), run_rounds(dense, range(1, 4), seed=1))


def test_a_run_resumed_after_round_two_equals_the_undisturbed_one():
    dense = small_module().state_dict()
    undisturbed = run_rounds(dense, range(1, 4))

    checkpoint = run_rounds(dense, range(1, 3))
    resumed = run_rounds(checkpoint, range(3, 4))

    assert same(resumed, undisturbed)


def test_seeds_all_three_generators():
    def draw() -> tuple[float, float, float]:
        seed_everything(5, number=2)
        return float(torch.rand(())), float(np.random.rand()), random.random()

    assert draw() == draw()


def test_each_round_and_epoch_of_each_job_has_its_own_seed():
    seeds = [
        round_seed(seed, number=number, epoch=epoch)
        for seed in (0, 1, 2**31 - 1)
        for number in range(1, 20)
        for epoch in range(20)
    ]

    assert len(set(seeds)) == len(seeds)
    torch.manual_seed(max(seeds))
