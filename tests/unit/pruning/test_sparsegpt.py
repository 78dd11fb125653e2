"""SparseGPT's solver: exact counts, exact solutions where there are some, patterns, zeros that stay."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workers.pruning.nm import holds
from workers.pruning.second_order.factor import Inverse, invert
from workers.pruning.second_order.reconstruct import prune_to_pattern, prune_to_share, zeros_by_block


def correlated(rows: int, columns: int, seed: int, groups: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(groups, columns, columns, generator=generator) / columns**0.5
    return torch.randn(groups, rows, columns, generator=generator) @ (mixed + 0.5 * torch.eye(columns))


def inverse_of(inputs: Tensor, damp: float = 0.01) -> Inverse:
    return invert(inputs.mT @ inputs, damp, name="layer")[0]


def error(inputs: Tensor, change: Tensor) -> float:
    return float((inputs @ change).square().sum())


def papers_code(
    weight: Tensor, factor: Tensor, share: float, nm: tuple[int, int] | None, block: int
) -> Tensor:
    """The published loop: [outputs, columns], one column at a time, thresholds by sorting."""
    weight = weight.clone()
    for start in range(0, weight.shape[1], block):
        stop = min(start + block, weight.shape[1])
        part, errors = weight[:, start:stop].clone(), torch.zeros(len(weight), stop - start)
        inner = factor[start:stop, start:stop]
        scores = part**2 / inner.diagonal() ** 2
        gone = torch.zeros_like(part, dtype=torch.bool)
        if nm is None:
            count = round(share * scores.numel())
            gone = scores <= scores.flatten().sort().values[count - 1]
        for column in range(stop - start):
            if nm is not None and column % nm[1] == 0:
                here = slice(column, column + nm[1])
                now = part[:, here] ** 2 / inner.diagonal()[here] ** 2
                gone.scatter_(1, column + now.topk(nm[1] - nm[0], dim=1, largest=False).indices, True)
            kept = part[:, column].masked_fill(gone[:, column], 0.0)
            errors[:, column] = (part[:, column] - kept) / inner[column, column]
            part[:, column:] -= errors[:, column, None] * inner[column, column:]
            part[:, column] = kept
        weight[:, start:stop] = part
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return weight


@pytest.mark.parametrize("nm", [None, (2, 4), (4, 8), (1, 4)])
def test_solves_as_the_papers_code_does(nm: tuple[int, int] | None):
    inputs = correlated(200, 96, seed=0)
    inverse = inverse_of(inputs)
    weight = torch.randn(1, 96, 24, generator=torch.Generator().manual_seed(1))
    expected = papers_code(weight[0].T, inverse.factor[0], 0.5, nm, block=32)

    if nm is None:
        prune_to_share(weight, inverse, round(0.5 * weight.numel()), block=32)
    else:
        prune_to_pattern(weight, inverse, *nm, block=32)

    assert torch.equal(weight[0].T == 0, expected == 0)
    assert torch.allclose(weight[0].T, expected, atol=1e-4)


def test_is_the_least_squares_solution_where_the_first_columns_go():
    inputs = correlated(50, 8, seed=3)
    inverse = inverse_of(inputs, damp=1e-7)
    weight = torch.randn(1, 8, 2, generator=torch.Generator().manual_seed(4))
    weight[:, :3] *= 1e-2
    before = weight.clone()

    prune_to_share(weight, inverse, 6, block=8)

    outputs = (inputs @ before)[0].double()
    best = torch.linalg.lstsq(inputs[0, :, 3:].double(), outputs).solution
    assert (weight[0, :3] == 0).all()
    assert torch.allclose(weight[0, 3:].double(), best, atol=1e-4)


def test_of_two_equal_inputs_one_weight_takes_the_others_part():
    column = torch.randn(1, 40, 1, generator=torch.Generator().manual_seed(0))
    inverse = inverse_of(torch.cat([column, column], dim=2), damp=1e-4)
    weight = torch.tensor([[[1.0], [3.0]]])

    prune_to_share(weight, inverse, 1, block=8)

    assert weight[0, 0, 0] == 0
    assert weight[0, 1, 0] == pytest.approx(4.0, abs=1e-2)


@given(
    columns=st.integers(1, 40),
    outputs=st.integers(1, 6),
    groups=st.integers(1, 3),
    share=st.floats(0, 1),
    zeros=st.floats(0, 1),
    block=st.integers(1, 48),
    levels=st.integers(1, 50),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_the_share_is_exact_and_zeros_stay(columns, outputs, groups, share, zeros, block, levels, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(1, levels + 1, (groups, columns, outputs), generator=generator) / levels
    weight *= torch.rand(weight.shape, generator=generator) >= zeros
    before = weight == 0
    inverse = inverse_of(correlated(columns + 3, columns, seed, groups))
    wanted = round(share * weight.numel())

    prune_to_share(weight, inverse, wanted, block=block)

    assert int((weight == 0).sum()) == max(wanted, int(before.sum()))
    assert (weight[before] == 0).all()


@given(
    pattern=st.sampled_from([(2, 4), (1, 4), (4, 8), (3, 5), (8, 32)]),
    groups_of_m=st.integers(1, 5),
    outputs=st.integers(1, 5),
    groups=st.integers(1, 2),
    block=st.integers(8, 40),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_the_pattern_holds_and_zeros_stay(pattern, groups_of_m, outputs, groups, block, zeros, seed):
    n, m = pattern
    columns = m * groups_of_m
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups, columns, outputs, generator=generator)
    weight *= torch.rand(weight.shape, generator=generator) >= zeros
    before = weight == 0
    inverse = inverse_of(correlated(columns + 3, columns, seed, groups))

    prune_to_pattern(weight, inverse, n, m, block=block)

    assert all(holds(part, n, m, kind="Conv1D") for part in weight)
    assert (weight[before] == 0).all()


@pytest.mark.parametrize("nm", [None, (2, 4)])
def test_keeps_outputs_closer_than_magnitude_does(nm: tuple[int, int] | None):
    ratios = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(1, 256, 16, generator=generator) @ torch.randn(1, 16, 32, generator=generator)
        inputs += 0.3 * torch.randn(inputs.shape, generator=generator)
        weight = torch.randn(1, 32, 16, generator=torch.Generator().manual_seed(seed + 1))
        solved, cut = weight.clone(), weight.clone()
        identity = Inverse(torch.eye(32)[None], torch.ones(1, 32))
        for target, inverse in ((solved, inverse_of(inputs)), (cut, identity)):
            if nm is None:
                prune_to_share(target, inverse, weight.numel() // 2, block=8)
            else:
                prune_to_pattern(target, inverse, *nm, block=128)
        ratios.append(error(inputs, solved - weight) / error(inputs, cut - weight))

    assert sorted(ratios)[10] < 0.5
    assert max(ratios) < 1.0


def test_a_second_time_changes_nothing():
    inverse = inverse_of(correlated(64, 24, seed=5))
    weight = torch.randn(1, 24, 8, generator=torch.Generator().manual_seed(6))
    prune_to_share(weight, inverse, 96, block=8)
    once = weight.clone()

    prune_to_share(weight, inverse, 96, block=8)

    assert torch.equal(weight, once)


def test_weights_on_inputs_that_are_always_zero_go_first():
    inputs = correlated(40, 6, seed=7)
    inputs[:, :, 2] = 0
    weight = torch.ones(1, 6, 3)
    weight[:, 2] = 100

    prune_to_share(weight, inverse_of(inputs), 3, block=8)

    assert (weight[0, 2] == 0).all()


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    share=st.floats(0, 1),
    data=st.data(),
)
def test_blocks_share_out_the_exact_count(sizes: list[int], share: float, data: st.DataObject):
    before = [data.draw(st.integers(0, size)) for size in sizes]
    zeros = round(share * sum(sizes))

    counts = zeros_by_block(sizes, before, zeros)

    assert sum(counts) == max(zeros, sum(before))
    assert all(old <= new <= size for old, new, size in zip(before, counts, sizes, strict=True))


def test_equal_blocks_get_equal_shares():
    assert zeros_by_block([100, 100, 50], [0, 0, 0], 125) == [50, 50, 25]
    assert zeros_by_block([100, 100], [80, 0], 100) == [80, 20]
