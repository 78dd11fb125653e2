"""A model that has no room on its device is refused before its weights are read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.job import FailureClass
from tests.jobs import spec
from tests.unit.test_memory_needed import ZEROS_ONLY
from tests.zoo import safetensors
from workers.errors import OutOfMemory
from workers.room import needed_bytes, require_room

CPU = torch.device("cpu")
PARAMETERS = 10**12


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A folder with a true header and 2 TB of zeros in float16, which take no room on the disk."""
    entry = {"dtype": "F16", "shape": [PARAMETERS], "data_offsets": [0, 2 * PARAMETERS]}
    header = json.dumps({"weight": entry}).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * PARAMETERS)
    return tmp_path


def test_a_model_larger_than_the_memory_is_refused_with_both_figures_and_a_remedy(huge: Path):
    with pytest.raises(
        OutOfMemory, match=r"at least 20,000\.00 GB on cpu .* GB are free .*: .*epochs to 0"
    ) as told:
        require_room(spec(), huge, CPU)

    assert told.value.failure_class is FailureClass.out_of_memory


def test_what_only_writes_zeros_takes_one_copy_in_half_precision(huge: Path):
    assert needed_bytes(spec(**ZEROS_ONLY), huge) == 2 * PARAMETERS


def test_the_operator_may_switch_the_check_off(huge: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECATEUR_CHECK_MEMORY", "false")

    require_room(spec(), huge, CPU)


def test_a_small_model_has_room(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(safetensors(weight=("F32", [4, 3])))

    require_room(spec(), tmp_path, CPU)
    assert needed_bytes(spec(), tmp_path) == 5 * 12 * 4


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"model.safetensors": b"no header"}, None),
        ({"model.pt2": bytes(10)}, 50),
        # constants of the graph are shared
        ({"m.onnx": bytes(10), "m.onnx.data": bytes(30)}, 40),
    ],
    ids=str,
)
def test_other_files_count_as_they_are_and_broken_ones_are_left_to_their_loader(
    tmp_path: Path, files: dict[str, Any], expected: int | None
):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    assert needed_bytes(spec(), tmp_path) == expected
    require_room(spec(), tmp_path, CPU)
