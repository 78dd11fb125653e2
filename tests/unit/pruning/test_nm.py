"""N of M neighbours: against a plain reference, and the cases one can check by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from workers.pruning.layers import Layer, prunable_layers
from workers.pruning.nm import CHUNK, eligible, holds, nm_keep


def reference(weight: Tensor, scores: Tensor, n: int, m: int, axis: int) -> Tensor:
    """One group at a time, sorted in Python by score, zeros last, then by place."""
    ranks = scores.where(weight != 0, -1.0).movedim(axis, -1)
    keep = torch.zeros(ranks.shape, dtype=torch.bool)
    for place in torch.cartesian_prod(*[torch.arange(size) for size in ranks.shape[:-1]]).view(
        -1, weight.dim() - 1
    ):
        row = tuple(place.tolist())
        for start in range(0, ranks.shape[-1], m):
            group = range(start, start + m)
            best = sorted(group, key=lambda i: (-float(ranks[row][i]), i))
            keep[row][best[:n]] = True
    return keep.movedim(-1, axis)


SHAPES = {
    "Linear": (lambda o, i: (o, i), 1),
    "Conv1D": (lambda o, i: (i, o), 0),
    "Conv1d": (lambda o, i: (o, i, 3), 1),
    "Conv2d": (lambda o, i: (o, i, 2, 3), 1),
    "Conv3d": (lambda o, i: (o, i, 1, 2, 2), 1),
}
PATTERNS = [(2, 4), (1, 4), (4, 8), (1, 2), (3, 4), (2, 8), (5, 6)]


@given(
    kind=st.sampled_from(sorted(SHAPES)),
    pattern=st.sampled_from(PATTERNS),
    outputs=st.integers(1, 4),
    groups=st.integers(1, 3),
    levels=st.integers(1, 5),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=60)
def test_keeps_what_a_sort_of_each_group_keeps(kind, pattern, outputs, groups, levels, seed):
    n, m = pattern
    shape, axis = SHAPES[kind]
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-levels, levels + 1, shape(outputs, groups * m), generator=generator).float()
    scores = torch.randint(0, levels + 1, weight.shape, generator=generator).float()

    keep = nm_keep(weight, scores, n, m, kind=kind)

    assert torch.equal(keep, reference(weight, scores, n, m, axis))
    assert keep.sum() == weight.numel() // m * n
    assert holds(weight * keep, n, m, kind=kind)


@given(pattern=st.sampled_from(PATTERNS), seed=st.integers(0, 999))
def test_a_second_mask_changes_nothing(pattern, seed):
    n, m = pattern
    weight = torch.randn(3, 2 * m, generator=torch.Generator().manual_seed(seed))
    weight *= nm_keep(weight, weight.abs(), n, m, kind="Linear")

    again = weight * nm_keep(weight, weight.abs(), n, m, kind="Linear")

    assert torch.equal(again, weight)


def test_the_two_largest_of_four_stay():
    weight = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8]])

    kept = weight * nm_keep(weight, weight.abs(), 2, 4, kind="Linear")

    assert kept.tolist() == [[0, 0, 3, 4, 0, 0, 7, 8]]


def test_the_first_of_equal_scores_stay():
    weight = torch.full((1, 4), 0.5)

    assert nm_keep(weight, weight, 2, 4, kind="Linear").tolist() == [[True, True, False, False]]
    assert nm_keep(weight, weight, 1, 4, kind="Linear").tolist() == [[True, False, False, False]]


def test_zeros_go_first_whatever_they_score():
    weight = torch.tensor([[0.0, 1.0, 0.0, 2.0]])
    scores = torch.tensor([[9.0, 1.0, 9.0, 2.0]])

    assert nm_keep(weight, scores, 2, 4, kind="Linear").tolist() == [[False, True, False, True]]


def test_a_convolution_is_grouped_over_input_channels_at_each_position():
    weight = torch.zeros(1, 4, 1, 2)
    weight[0, :, 0, 0] = torch.tensor([1.0, 2, 3, 4])
    weight[0, :, 0, 1] = torch.tensor([4.0, 3, 2, 1])

    keep = nm_keep(weight, weight.abs(), 2, 4, kind="Conv2d")

    assert keep[0, :, 0, 0].tolist() == [False, False, True, True]
    assert keep[0, :, 0, 1].tolist() == [True, True, False, False]


def test_large_weights_are_compared_in_chunks_without_a_seam():
    weight = torch.randn(6, CHUNK // 2)
    one_row = torch.randn(1, 2 * CHUNK + 4)

    for tensor in (weight, one_row):
        groups = tensor.abs().view(-1, 4)
        expected = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, groups.topk(2).indices, True)

        assert torch.equal(nm_keep(tensor, tensor.abs(), 2, 4, kind="Linear"), expected.view_as(tensor))


def test_channels_last_weights_give_the_same_mask():
    weight = torch.randn(3, 8, 3, 3)
    last = weight.to(memory_format=torch.channels_last)

    assert torch.equal(
        nm_keep(last, last.abs(), 2, 4, kind="Conv2d"), nm_keep(weight, weight.abs(), 2, 4, kind="Conv2d")
    )


@pytest.mark.parametrize("pattern", [(2, 4), (4, 8)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_scores_without_an_order(pattern: tuple[int, int], bad: float):
    weight, scores = torch.ones(2, 8), torch.ones(2, 8)
    scores[1, 5] = bad

    with pytest.raises(ValueError, match="NaN or infinity"):
        nm_keep(weight, scores, *pattern, kind="Linear")


def test_scores_whose_sum_overflows_are_compared():
    weight = torch.tensor([[3e38, 2e38, 3.1e38, 1e38]])

    assert nm_keep(weight, weight, 2, 4, kind="Linear").tolist() == [[True, False, True, False]]


@pytest.mark.parametrize(("n", "m"), [(4, 4), (0, 4), (5, 4)])
def test_refuses_a_pattern_that_prunes_nothing_or_all(n: int, m: int):
    with pytest.raises(ValueError, match="can stay"):
        nm_keep(torch.ones(4, 4), torch.ones(4, 4), n, m, kind="Linear")


@pytest.mark.parametrize(("kind", "shape"), [("Linear", (4, 6)), ("ConvTranspose2d", (4, 4, 3, 3))])
def test_refuses_shapes_without_such_groups(kind: str, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="no groups of 4 inputs"):
        nm_keep(torch.ones(shape), torch.ones(shape), 2, 4, kind=kind)
    with pytest.raises(ValueError, match="no groups of 4 inputs"):
        holds(torch.ones(shape), 2, 4, kind=kind)


def test_refuses_scores_of_another_shape():
    with pytest.raises(ValueError, match="must have the weight's shape"):
        nm_keep(torch.ones(4, 4), torch.ones(4, 8), 2, 4, kind="Linear")


def test_one_weight_too_many_breaks_the_pattern():
    weight = torch.tensor([[1.0, 0, 1, 0, 0, 0, 0, 1]])
    assert holds(weight, 2, 4, kind="Linear")

    weight[0, 1] = 1e-30

    assert not holds(weight, 2, 4, kind="Linear")


def layer(module: nn.Module) -> Layer:
    return prunable_layers(nn.Sequential(module))[0]


def test_names_the_reason_of_each_shape_that_cannot_take_the_pattern():
    assert eligible(layer(nn.Linear(8, 3)), 2, 4) is None
    assert eligible(layer(Conv1D(3, 8)), 2, 4) is None
    assert eligible(layer(nn.Conv2d(16, 8, 3, groups=2)), 4, 8) is None
    assert eligible(layer(nn.Linear(8, 4)), 4, 16) == "4:16 needs a multiple of 16 inputs; this layer has 8"
    assert "this layer has 3" in (eligible(layer(nn.Conv2d(3, 8, 7)), 2, 4) or "")
    assert "1 in each of its 8 groups" in (eligible(layer(nn.Conv2d(8, 8, 3, groups=8)), 2, 4) or "")
    assert "transposed" in (eligible(layer(nn.ConvTranspose2d(8, 8, 3)), 2, 4) or "")
