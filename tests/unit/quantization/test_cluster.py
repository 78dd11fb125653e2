"""Weights that share k values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from workers.pruning.layers import prunable_layers
from workers.quantization.cluster import cluster_layers, clustered

WEIGHTS = arrays.arrays(
    np.float64,
    st.integers(1, 60),
    elements=st.floats(-3, 3, width=32).filter(lambda value: abs(value) > 1e-6),
)


def test_two_clusters_of_a_line_are_its_two_heaps():
    values = np.array([1.0, 1.1, 0.9, -2.0, -2.2, -1.8])

    assert clustered(values, 2) == pytest.approx([1, 1, 1, -2, -2, -2])


@given(WEIGHTS, st.integers(2, 8))
def test_there_are_at_most_k_values_and_none_is_zero(values: np.ndarray, k: int):
    found = clustered(values, k)

    assert len(np.unique(found)) <= k
    assert (found != 0).all()


@given(WEIGHTS, st.integers(2, 8))
def test_the_error_is_at_most_that_of_evenly_spaced_values(values: np.ndarray, k: int):
    centres = np.linspace(values.min(), values.max(), k)
    even = centres[np.abs(values[:, None] - centres).argmin(axis=1)]

    error = ((clustered(values, k) - values) ** 2).sum()

    assert error <= ((even - values) ** 2).sum() + 1e-9


@given(WEIGHTS)
def test_few_values_stay_as_they_are(values: np.ndarray):
    assert (clustered(values, len(values)) == values).all() or len(values) == 1


def test_refuses_weights_that_are_not_finite():
    with pytest.raises(ValueError, match="NaN or infinity"):
        clustered(np.array([1.0, np.nan]), 2)


def test_zeros_of_a_layer_stay_zeros_and_nothing_else_becomes_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Conv2d(2, 4, 3))
    layers = prunable_layers(model)
    with torch.no_grad():
        for layer in layers:
            layer.weight[layer.weight.abs() < layer.weight.abs().median()] = 0
    before = [layer.weight == 0 for layer in layers]

    cluster_layers(layers, 4)

    for layer, zero in zip(layers, before, strict=True):
        assert torch.equal(layer.weight == 0, zero)
        assert len(torch.unique(layer.weight)) <= 5
