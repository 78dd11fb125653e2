"""Weights without their zeros on disk."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from workers.models.sparse_file import SPARSE, read_sparse, write_sparse

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def sparse(shape: tuple[int, ...], zeros: float, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator) + 3  # not one of them is zero by chance
    count = round(zeros * weight.numel())
    weight.view(-1)[torch.randperm(weight.numel(), generator=generator)[:count]] = 0
    return weight.to(dtype)


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    zeros=st.floats(0, 1),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_is_what_was_written(shape, zeros, dtype, seed, tmp_path: Path):
    tensors = {"a.weight": sparse(shape, zeros, dtype, seed), "a.count": torch.arange(3)}

    write_sparse(tensors, tmp_path / SPARSE)
    found = read_sparse(tmp_path / SPARSE)

    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize(
    ("zeros", "dtype", "limit"),
    [(0.8, torch.float32, 0.27), (0.5, torch.float16, 0.57), (0.9, torch.float32, 0.14)],
)
def test_the_file_is_near_the_entropy_bound(zeros, dtype, limit, tmp_path: Path):
    weight = sparse((256, 1024), zeros, dtype)
    bits = 8 * weight.element_size()
    entropy = -(zeros * math.log2(zeros) + (1 - zeros) * math.log2(1 - zeros))

    written = write_sparse({"a.weight": weight}, tmp_path / SPARSE)

    share = written.bytes / written.dense_bytes
    assert share <= limit
    assert share - (entropy / bits + 1 - zeros) < 1 / bits


def test_a_dense_tensor_is_stored_as_it_is(tmp_path: Path):
    weight = sparse((8, 8), 0)

    written = write_sparse({"a.weight": weight}, tmp_path / SPARSE)

    assert written.packed == 0
    assert torch.equal(load_file(tmp_path / SPARSE)["a.weight"], weight)


def test_nan_and_infinity_are_no_zeros(tmp_path: Path):
    weight = torch.zeros(64)
    weight[3], weight[9] = math.nan, -math.inf

    write_sparse({"a.weight": weight}, tmp_path / SPARSE)

    assert torch.equal(read_sparse(tmp_path / SPARSE)["a.weight"].isnan(), weight.isnan())
    assert read_sparse(tmp_path / SPARSE)["a.weight"][9] == -math.inf


def test_a_name_that_looks_like_a_part_is_a_tensor_of_its_own(tmp_path: Path):
    tensors = {"a.compressed": sparse((4, 4), 0), "a.weight": sparse((16, 16), 0.9)}

    write_sparse(tensors, tmp_path / SPARSE)

    found = read_sparse(tmp_path / SPARSE)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
