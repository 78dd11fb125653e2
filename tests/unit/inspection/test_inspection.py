"""What `secateur inspect` says of a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests import tiny
from workers.errors import ModelError
from workers.inspection.weights import inspect_file


def held(rows: int, columns: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    weight = torch.rand(rows, columns) + 0.5
    weight.view(-1, 4)[:, :2] = 0
    return weight.to(dtype)


def test_linear_weights_of_safetensors_are_read_by_their_inputs(tmp_path: Path):
    save_file({"fc.weight": held(256, 512), "fc.bias": torch.ones(256)}, tmp_path / "model.safetensors")

    (layer,) = inspect_file(tmp_path / "model.safetensors").layers

    assert (layer.name, layer.operator, layer.inputs, layer.outputs) == ("fc", "Linear", 512, 256)
    assert layer.is_eligible
    assert layer.doubts == []


def test_bfloat16_has_its_own_name_and_no_zeros_that_were_not_there(tmp_path: Path):
    save_file({"fc.weight": torch.full((256, 256), 1e-30, dtype=torch.bfloat16)}, tmp_path / "m.safetensors")

    (layer,) = inspect_file(tmp_path / "m.safetensors").layers

    assert (layer.dtype, layer.zeros, layer.doubts) == ("bfloat16", 0.0, [])


def test_embeddings_are_no_layers(tmp_path: Path):
    save_file({"embed_tokens.weight": held(64, 64), "fc.weight": held(16, 64)}, tmp_path / "m.safetensors")

    assert [layer.name for layer in inspect_file(tmp_path / "m.safetensors").layers] == ["fc"]


def test_a_model_folder_is_read_whole(tmp_path: Path):
    found = inspect_file(tiny.resnet(tmp_path / "model"))

    assert len(found.layers) > 3
    assert (found.eligible, found.eligible_share) == (0, 0.0)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("m.bin", b"x", r"neither \*\.onnx nor \*\.safetensors"),
        ("m.onnx", b"\xff\xff", "not an ONNX file"),
        ("m.safetensors", b"\xff" * 20, "not a valid safetensors file"),
    ],
)
def test_another_file_is_refused(name: str, content: bytes, why: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ModelError, match=why):
        inspect_file(tmp_path / name)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli.main", "inspect", *arguments]
    environment = {**os.environ, "COLUMNS": "220"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_command_names_what_would_help(tmp_path: Path):
    save_file({"fc.weight": held(30, 20, torch.float32)}, tmp_path / "m.safetensors")

    done = run(str(tmp_path / "m.safetensors"))

    assert done.returncode == 0
    assert "multiples of 16, 32 would do" in " ".join(done.stdout.split())
    assert "0 of 1 layers are eligible" in done.stdout
    assert "only a measurement says" in done.stdout


def test_the_command_gives_json_and_refuses_with_a_reason(tmp_path: Path):
    save_file({"fc.weight": held(16, 16)}, tmp_path / "m.safetensors")

    whole, missing = run(str(tmp_path / "m.safetensors"), "--json"), run(str(tmp_path / "none.onnx"))

    assert json.loads(whole.stdout)["layers"][0]["holds"] is True
    assert missing.returncode != 0
    assert "does not exist" in missing.stderr
