"""The k-th smallest score against a plain sort, for every shape of distribution that could mislead it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workers.pruning import threshold
from workers.pruning.scores.elementwise import magnitude
from workers.pruning.scores.score import flat_weights
from workers.pruning.threshold import Cutoff, Scored, kth_smallest, zero_smallest


def scored(*weights: Tensor) -> list[Scored]:
    return [Scored(str(number), one, magnitude) for number, one in enumerate(weights)]


def expected(weights: list[Tensor], k: int) -> Cutoff:
    scores = torch.cat([one.double().abs() for one in weights])
    value = scores.sort().values[k - 1]
    return Cutoff(float(value), int((scores < value).sum()), int((scores == value).sum()))


def expected_zeros(weights: list[Tensor], k: int) -> Tensor:
    """Which weights a stable sort would cut: smallest first, ties in module order, then index order."""
    scores = torch.cat([one.double().abs() for one in weights])
    gone = torch.zeros(len(scores), dtype=torch.bool)
    gone[scores.sort(stable=True).indices[:k]] = True
    return gone


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples and buffers so small that a few thousand weights take every path."""
    monkeypatch.setattr(threshold, "CPU_CHUNK", 97)
    monkeypatch.setattr(threshold, "SAMPLE", 256)
    monkeypatch.setattr(threshold, "KEPT", 64)
    monkeypatch.setattr(threshold, "_TRUSTED_SAMPLE", 24)


def distributions() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    normal = torch.randn(6000, generator=generator)
    sparse = normal.clone()
    sparse[torch.rand(6000, generator=generator) < 0.8] = 0
    sawtooth = torch.arange(6000).remainder(251).float()
    return {
        "normal": normal,
        "all equal": torch.full((6000,), 0.5),
        "all zero": torch.zeros(6000),
        "80 % zeros": sparse,
        "sorted": normal.sort().values,
        "two values": torch.where(normal > 0, 1.0, 2.0),
        "rounded": normal.mul(4).round(),
        "huge range": normal.mul(20).exp(),
        "denormal": normal * 1e-42,
        "sawtooth": sawtooth,
        "outlier layer": torch.cat([normal[:5990] * 1e-6, normal[:10] * 1e6]),
        # what a stride of 6000 / 256 -> 29 sees is not at all what there is
        "misleading": torch.where(torch.arange(6000) % 29 == 0, 100.0, normal),
    }


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("name", distributions())
@pytest.mark.parametrize("k", [1, 7, 1200, 3000, 4799, 4800, 4801, 5999, 6000])
def test_agrees_with_a_sort(name: str, k: int):
    weights = list(distributions()[name].split([1000, 3, 4997]))

    cutoff = kth_smallest(scored(*weights), k)

    assert cutoff == expected(weights, k)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("name", distributions())
@pytest.mark.parametrize("k", [1, 2500, 4800, 5400, 6000])
def test_zeroes_exactly_the_weights_that_a_stable_sort_would(name: str, k: int):
    weights = list(distributions()[name].clone().split([1000, 3, 4997]))
    gone = expected_zeros(weights, k)
    before = torch.cat(weights)

    layers = scored(*weights)
    zero_smallest(layers, k, kth_smallest(layers, k))

    assert torch.equal(torch.cat(weights), before.masked_fill(gone, 0.0))


@pytest.mark.usefixtures("small_limits")
@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0]), min_size=1), data=st.data())
def test_any_mix_of_ties_is_cut_exactly(values: list[float], data: st.DataObject):
    weights = torch.tensor(values)
    k = data.draw(st.integers(1, len(values)))
    gone = expected_zeros([weights], k)

    layers = scored(weights.clone())
    zero_smallest(layers, k, kth_smallest(layers, k))

    assert torch.equal(layers[0].weights, weights.masked_fill(gone, 0.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 120_000, 300_000])
def test_is_exact_in_every_float_type_with_the_real_limits(dtype: torch.dtype, k: int):
    weights = [torch.randn(200_000).to(dtype), torch.randn(100_000).to(dtype)]
    gone = expected_zeros(weights, k)

    layers = scored(*[one.clone() for one in weights])
    cutoff = kth_smallest(layers, k)
    zero_smallest(layers, k, cutoff)

    assert cutoff == expected(weights, k)
    assert torch.equal(torch.cat([one.weights for one in layers]) == 0, gone | (torch.cat(weights) == 0))


@pytest.mark.usefixtures("small_limits")
def test_compares_layers_of_different_float_types_without_rounding():
    weights = [torch.randn(3000).bfloat16(), torch.randn(3000), torch.randn(3000).double()]

    for k in (1, 4000, 8000):
        assert kth_smallest(scored(*weights), k) == expected(weights, k)


def test_holds_a_thin_sample_of_a_huge_class_of_ties(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threshold, "KEPT", 1000)
    kept = threshold._Kept()

    for _ in range(50):
        kept.add(torch.zeros(997).numpy())

    assert kept.seen == 50 * 997
    assert not kept.is_complete
    assert 500 <= len(kept.values()) <= 1000


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("size", [10, 200_000])
def test_refuses_weights_without_an_order(bad: float, size: int):
    weights = torch.randn(size)
    weights[size // 3] = bad

    with pytest.raises(ValueError, match="NaN or infinity"):
        kth_smallest(scored(weights), size // 2)


def test_takes_weights_whose_sum_overflows():
    weights = torch.full((1000,), 3e38)

    assert kth_smallest(scored(weights), 10) == expected([weights], 10)


@pytest.mark.parametrize("k", [0, 11])
def test_refuses_a_rank_outside_the_weights(k: int):
    with pytest.raises(ValueError, match="between 1 and 10"):
        kth_smallest(scored(torch.ones(10)), k)


def test_flat_weights_are_a_view_for_channels_last_too():
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)

    flat_weights(weight).zero_()

    assert (weight == 0).all()


def test_a_cut_leaves_no_negative_zeros():
    layers = scored(torch.tensor([-1.0, 2.0, -0.5]))

    zero_smallest(layers, 2, kth_smallest(layers, 2))

    assert not layers[0].weights.signbit().any()
