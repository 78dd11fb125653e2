"""Model folders that lie or attack: nothing they name is run, and no header is believed."""

import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from schemas.task import Task
from service.store import tensor_header
from tests import tiny
from workers.errors import ModelError
from workers.models.load import load_model


class Bomb:
    """Makes a directory when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(folder, Task.image_classification)
    return str(caught.value)


def write_safetensors(folder: Path, header: bytes, data: bytes, *, stated: int | None = None) -> None:
    length = len(header) if stated is None else stated
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + header + data)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", "model.pkl"])
def test_refuses_a_pickle_where_safetensors_should_be(tmp_path, name):
    folder = tiny.resnet(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "was_run")))

    message = refusal(folder)

    assert name in message
    assert "save them with safetensors" in message
    assert not (tmp_path / "was_run").exists()


def test_a_pickle_beside_the_weights_is_not_read(tmp_path):
    folder = tiny.resnet(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "was_run")))

    load_model(folder, Task.image_classification)

    assert not (tmp_path / "was_run").exists()


def test_python_files_are_never_imported(tmp_path):
    folder = tiny.resnet(tmp_path / "model")
    (folder / "modeling.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'was_run')!r})\n")
    tiny.edit_json(folder / "config.json", auto_map={"AutoModelForImageClassification": "modeling.Evil"})

    message = refusal(folder)

    assert "'auto_map' asks for Python code" in message
    assert not (tmp_path / "was_run").exists()


def test_refuses_auto_map_below_the_top_of_the_config(tmp_path):
    folder = tiny.resnet(tmp_path)
    tiny.edit_json(folder / "config.json", parts=[{"auto_map": {"AutoModel": "other/repository--m.E"}}])

    assert "auto_map" in refusal(folder)


def test_refuses_a_kernel_from_a_repository(tmp_path):
    folder = tiny.resnet(tmp_path)
    tiny.edit_json(folder / "config.json", attn_implementation="someone/flash-attention")

    assert "someone/flash-attention" in refusal(folder)


def test_refuses_a_header_longer_than_the_file(tmp_path):
    folder = tiny.resnet(tmp_path)
    write_safetensors(folder, b"{}", b"", stated=2**62)

    message = refusal(folder)

    assert "model.safetensors is cut short" in message
    assert f"{2**62:,} bytes" in message


def test_refuses_a_header_above_the_bound_before_the_library_reads_it(tmp_path):
    folder = tiny.resnet(tmp_path)
    write_safetensors(folder, b" " * (tensor_header.MAX_HEADER_BYTES + 1), b"")

    assert "at most 16,777,216 are read" in refusal(folder)


def test_refuses_more_tensors_than_any_model_has(tmp_path):
    folder = tiny.resnet(tmp_path)
    names = (b'"t%d":{"data_offsets":[0,0]}' % number for number in range(tensor_header.MAX_TENSORS + 1))
    write_safetensors(folder, b"{" + b",".join(names) + b"}", b"")

    assert "100,001 tensors" in refusal(folder)


def test_refuses_offsets_beyond_the_file(tmp_path):
    folder = tiny.resnet(tmp_path)
    header = {"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}
    write_safetensors(folder, json.dumps(header).encode(), b"\0" * 8)

    assert "its tensors take 4,000 bytes, and it holds 8" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 3000])
def test_refuses_a_file_that_was_cut_short(tmp_path, keep):
    folder = tiny.resnet(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])

    assert "model.safetensors" in refusal(folder)


def test_refuses_a_file_without_tensors(tmp_path):
    folder = tiny.resnet(tmp_path)
    save_file({}, folder / "model.safetensors")

    assert "holds no tensors" in refusal(folder)


def test_refuses_weights_under_another_name(tmp_path):
    folder = tiny.resnet(tmp_path)
    (folder / "model.safetensors").rename(folder / "resnet.safetensors")

    assert "neither model.safetensors nor model.safetensors.index.json" in refusal(folder)


def test_a_tensor_may_be_called_like_a_path(tmp_path):
    folder = tiny.resnet(tmp_path / "model")
    save_file({"../../evil": torch.zeros(1)}, folder / "model.safetensors")

    assert "unexpected ../../evil" in refusal(folder)
    assert not (tmp_path / "evil").exists()
