"""What is pulled for a model that is one file, or that a folder holds in more than one form; on a real S3."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from service.store.blobs import Blobs
from workers.cache import Cache
from workers.errors import ModelError, StorageError
from workers.model_files import refuse_pickles
from workers.transfer import MODEL_FILES, look_at


def stored(blobs: Blobs, names: Iterable[str], config: dict | None = None) -> str:
    """A folder with these files; what they hold is their name."""
    for name in names:
        blobs.put_bytes(f"zoo/one/{name}", name.encode())
    if config is not None:
        blobs.put_json("zoo/one/config.json", config)
    return f"s3://{blobs.bucket}/zoo/one/"


def pulled(blobs: Blobs, uri: str) -> list[str]:
    return sorted(look_at(blobs, uri, MODEL_FILES).files)


def test_a_file_comes_with_its_companions_and_no_other_model(blobs: Blobs, tmp_path: Path):
    names = ["a.pt2", "b.pt2", "c.onnx", "c.onnx.data", "model.safetensors", "surgery.json", "train.py"]
    folder = stored(blobs, [*names, "tokenizer.json", "deep/tokenizer.json", "a.pt2.bak"], {"mean": 0.5})

    with Cache(blobs, tmp_path, 2**20).folder(
        folder + "a.pt2", allow=MODEL_FILES, on_bytes=lambda *_: None
    ) as entry:
        found = {path.name: path.read_bytes() for path in entry.path.iterdir()}

    assert sorted(found) == ["a.pt2", "config.json", "tokenizer.json"]
    assert found["a.pt2"] == b"a.pt2"
    assert pulled(blobs, folder + "c.onnx") == ["c.onnx", "c.onnx.data", "config.json", "tokenizer.json"]


def test_a_file_at_the_root_of_a_bucket_is_found(blobs: Blobs):
    blobs.put_bytes("alone.pt2", b"1")
    blobs.put_bytes("zoo/other.pt2", b"1")

    assert pulled(blobs, f"s3://{blobs.bucket}/alone.pt2") == ["alone.pt2"]


def test_a_file_that_is_not_there_is_named(blobs: Blobs):
    folder = stored(blobs, ["a.pt2"])

    with pytest.raises(StorageError, match=r"b\.pt2 is not there; check the bucket and the name"):
        look_at(blobs, folder + "b.pt2", MODEL_FILES)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"model_type": "bert"}, ["config.json", "model.safetensors"]),
        ({"library_name": "torch.export"}, ["config.json", "model.pt2"]),
        ({"library_name": "onnx"}, ["config.json", "model.onnx", "model.onnx.data"]),
        ([], ["config.json", "model.safetensors"]),
    ],
)
def test_of_a_folder_with_several_forms_the_one_that_the_config_names_is_pulled(
    blobs: Blobs, config: object, wanted: list[str]
):
    folder = stored(blobs, ["model.safetensors", "model.pt2", "model.onnx", "model.onnx.data"])
    blobs.put_bytes("zoo/one/config.json", json.dumps(config).encode())

    assert pulled(blobs, folder) == wanted


def test_a_folder_with_an_archive_alone_is_pulled(blobs: Blobs):
    assert pulled(blobs, stored(blobs, ["model.pt2", "tokenizer.json"])) == ["model.pt2", "tokenizer.json"]


def test_pickles_are_refused_only_where_nothing_else_holds_weights(tmp_path: Path):
    with pytest.raises(ModelError, match=r"pytorch_model.bin where \*.safetensors should be"):
        refuse_pickles(["pytorch_model.bin"], tmp_path)
    (tmp_path / "model.pt2").touch()

    refuse_pickles(["pytorch_model.bin"], tmp_path)
