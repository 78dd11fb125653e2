"""Data sets in safetensors files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from schemas.refs import DataRef
from schemas.task import Task
from tests import tiny
from workers.data.load import load_bundle
from workers.data.memory import Allowance
from workers.data.tensors import read_tensors
from workers.errors import DataError
from workers.models.load import load_model

REF = DataRef(uri="s3://data/images/")


def write(folder: Path, **tensors: torch.Tensor) -> Path:
    for split in ("train", "validation"):
        save_file(tensors, folder / f"{split}.safetensors")
    return folder


def test_safetensors_and_npz_give_the_same_bundle(tmp_path):
    model = load_model(tiny.resnet(tmp_path / "model"), Task.image_classification)
    pixels, labels = map(torch.from_numpy, tiny.images(256, seed=1))
    (tmp_path / "data").mkdir()

    ours = load_bundle(write(tmp_path / "data", image=pixels, label=labels), REF, model, seed=0).train
    npz = load_bundle(tiny.image_npz(tmp_path / "npz"), REF, model, seed=0).train

    assert torch.equal(ours.first(256).inputs["pixel_values"], npz.first(256).inputs["pixel_values"])
    assert torch.equal(ours.first(256).labels, npz.first(256).labels)


def test_bfloat16_comes_as_float32(tmp_path):
    save_file({"x": torch.tensor([1.5, 2.0], dtype=torch.bfloat16)}, tmp_path / "a.safetensors")

    found = read_tensors(tmp_path / "a.safetensors", required=["x"], optional=[], allowance=Allowance(100))

    assert found["x"].dtype == "float32"
    assert found["x"].tolist() == [1.5, 2.0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "a.safetensors is not a valid safetensors file"),
        (b"\xff" * 64, "not a valid safetensors file"),
        ((2**40).to_bytes(8, "little") + b"{}", "not a valid safetensors file"),
        ((2).to_bytes(8, "little") + b"{}", r"has no tensor 'x' \(it has \)"),
    ],
)
def test_refuses_a_broken_file_by_its_name(tmp_path, content: bytes, says: str):
    (tmp_path / "a.safetensors").write_bytes(content)

    with pytest.raises(DataError, match=says):
        read_tensors(tmp_path / "a.safetensors", required=["x"], optional=[], allowance=Allowance(100))


def test_counts_the_memory_before_it_is_taken(tmp_path):
    save_file({"x": torch.zeros(100)}, tmp_path / "a.safetensors")

    with pytest.raises(DataError, match="the tensor 'x' would take"):
        read_tensors(tmp_path / "a.safetensors", required=["x"], optional=[], allowance=Allowance(399))
