"""Criteria as functions of weights."""

import torch

from workers.pruning.scores.elementwise import BLOCK, magnitude, random_for


def scores(weights: torch.Tensor, *, layer="a", seed=0, number=1, start=0) -> torch.Tensor:
    out = torch.empty(len(weights))
    where = slice(start, start + len(weights))
    random_for(layer, seed=seed, number=number)(weights, where, out)
    return out


def magnitudes(weights: torch.Tensor) -> torch.Tensor:
    out = torch.empty(len(weights))
    magnitude(weights, slice(0, len(weights)), out)
    return out


def test_magnitude_is_the_absolute_value():
    weights = torch.tensor([-3.0, 1e-30, 0.0, 2.0])

    assert torch.equal(magnitudes(weights), weights.abs())


def test_magnitude_of_half_precision_is_exact():
    weights = torch.randn(64).bfloat16()

    assert torch.equal(magnitudes(weights), weights.float().abs())


def test_random_scores_are_the_same_on_every_pass():
    weights = torch.ones(100)

    assert torch.equal(scores(weights), scores(weights))


def test_random_scores_change_with_seed_round_and_layer():
    weights = torch.ones(100)

    drawn = [scores(weights), scores(weights, seed=1), scores(weights, number=2), scores(weights, layer="b")]

    assert len({tuple(one.tolist()) for one in drawn}) == 4


def test_random_scores_do_not_depend_on_how_a_layer_is_cut_into_chunks():
    weights = torch.ones(2 * BLOCK + 5)

    whole = scores(weights)
    parts = [scores(weights[:BLOCK]), scores(weights[BLOCK:], start=BLOCK)]

    assert torch.equal(whole, torch.cat(parts))


def test_a_zero_weight_has_the_lowest_random_score():
    weights = torch.tensor([0.0, 1.0] * 500)

    drawn = scores(weights)

    assert (drawn[0::2] == 0).all()
    assert (drawn[1::2] > 0).all()
