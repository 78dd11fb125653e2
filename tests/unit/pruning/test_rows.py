"""Cuts that compare within a row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from tests.unit.pruning.cuts import layer_of
from workers.pruning import rows
from workers.pruning.rows import by_rows, cut_rows, zeros_by_row


def linear(values: list[list[float]]) -> nn.Linear:
    module = nn.Linear(len(values[0]), len(values), bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(values))
    return module


def test_each_row_loses_its_own_half_never_one_row_all():
    module = linear([[1, 2, 3, 4], [10, 20, 30, 40]])

    zeros = cut_rows(layer_of(module), torch.ones(1, 4), 4)

    assert module.weight.tolist() == [[0, 0, 3, 4], [0, 0, 30, 40]]
    assert zeros == 4


def test_small_weights_stay_where_their_input_is_large():
    module = linear([[1, 2, 3, 4]])

    cut_rows(layer_of(module), torch.tensor([[100.0, 10, 1, 0.1]]), 2)

    assert module.weight.tolist() == [[1, 2, 0, 0]]


def test_what_does_not_divide_goes_in_the_first_rows():
    module = linear([[1, 2, 3], [1, 2, 3], [1, 2, 3]])

    cut_rows(layer_of(module), torch.ones(1, 3), 5)

    assert (module.weight == 0).sum(dim=1).tolist() == [2, 2, 1]


def test_of_equal_scores_the_first_go():
    module = linear([[1, 1, 1, 1], [2, 1, 1, 1]])

    cut_rows(layer_of(module), torch.ones(1, 4), 4)

    assert module.weight.tolist() == [[0, 0, 1, 1], [2, 0, 0, 1]]


def test_zeros_that_are_there_count_and_go_first():
    module = linear([[0, 0, 0, 4], [1, 2, 3, 4]])

    zeros = cut_rows(layer_of(module), torch.tensor([[1.0, 1, 1, 0]]), 5)

    assert module.weight.tolist() == [[0, 0, 0, 4], [0, 2, 3, 0]]
    assert zeros == 5


def test_a_weight_without_input_goes_after_zeros():
    module = linear([[1, 0, 3, 4]])

    cut_rows(layer_of(module), torch.tensor([[0.0, 1, 0, 1]]), 1)

    assert module.weight.tolist() == [[1, 0, 3, 4]]


def test_the_columns_of_a_conv1d_of_transformers_are_its_rows():
    module = Conv1D(2, 4)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 10], [2, 20], [3, 30], [4, 40]]))

    cut_rows(layer_of(module), torch.ones(1, 4), 4)

    assert module.weight.tolist() == [[0, 0], [0, 0], [3, 30], [4, 40]]


KINDS = {
    "grouped": nn.Conv2d(4, 6, (2, 1), groups=2),
    "depthwise": nn.Conv2d(8, 8, 3, groups=8),
    "channels last": nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last),
    "transposed": nn.ConvTranspose2d(4, 6, 2, groups=2),
    "conv 1d": nn.Conv1d(3, 5, 4),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("chunk", [8, 1 << 20])
def test_every_row_of_a_convolution_loses_the_share(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "CHUNK", chunk)
    module = KINDS[name]
    nn.init.normal_(module.weight)
    layer = layer_of(module)
    view = by_rows(layer, module.weight.detach())
    norms = torch.rand(view.shape[0], *view.shape[2:]) + 0.5
    scores = (view.abs() * norms.unsqueeze(1)).flatten(2).clone()
    share = scores.shape[2] // 2

    cut_rows(layer, norms, share * scores.shape[0] * scores.shape[1])

    kept = scores.sort(dim=2).values[..., share : share + 1]
    assert torch.equal(view.flatten(2) == 0, scores < kept)


@settings(max_examples=100, deadline=None)
@given(
    zeros=st.lists(st.integers(0, 7), min_size=1, max_size=9),
    first=st.integers(0, 63),
    more=st.integers(0, 63),
)
def test_counts_by_row_are_exact_and_only_grow(zeros: list[int], first: int, more: int):
    there, size = torch.tensor([zeros]), 7 * len(zeros)
    less, most = min(first, size), min(first + more, size)

    low, high = zeros_by_row(there, 7, less), zeros_by_row(there, 7, most)

    assert int(low.sum()) == max(less, sum(zeros))
    assert (there <= low).all()
    assert (low <= high).all()
    assert int(high.max()) <= 7


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1e-42, 1.0, 3.0]), min_size=12, max_size=12),
    k=st.integers(0, 12),
)
def test_any_ties_are_cut_exactly(values: list[float], k: int):
    module = linear(torch.tensor(values).view(3, 4).tolist())
    before = int((module.weight == 0).sum())

    zeros = cut_rows(layer_of(module), torch.ones(1, 4), k)

    assert zeros == int((module.weight == 0).sum()) == max(k, before)


def test_inputs_without_an_order_are_refused():
    with pytest.raises(ValueError, match="NaN or infinity"):
        cut_rows(layer_of(nn.Linear(4, 2)), torch.full((1, 4), torch.nan), 3)
