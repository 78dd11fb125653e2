"""ONNX files that are broken, hostile or of another kind: each is refused by name and with a remedy."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from schemas.task import Task
from tests import onnx_models
from tests.onnx_models import linear, made, numbers
from workers.errors import ModelError
from workers.models.from_onnx import load_onnx
from workers.models.load import load_model

MUTATIONS = 300


def load(path: Path) -> Any:
    return load_onnx(path, Task.image_classification)


def edited(path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def outside(path: Path, location: str, **said: str) -> Path:
    """The linear model with its weight in the file `location`."""

    def change(model: onnx.ModelProto) -> None:
        (weight,) = model.graph.initializer
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **said}.items():
            weight.external_data.add(key=key, value=value)

    return edited(path, change)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04.", b"<html></html>", b"\x0a" * 2000, os.urandom(64)], ids=range(5)
)
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    with pytest.raises(ModelError, match=r"model\.onnx is not a valid ONNX file.*upload it again"):
        load(path)


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path):
    onnx_models.cnn(tmp_path)
    path = tmp_path / "model.onnx"
    path.write_bytes(path.read_bytes()[:-500])

    with pytest.raises(ModelError, match=r"upload it again|export"):
        load(path)


@pytest.mark.parametrize("location", ["/etc/passwd", "../w.bin", "sub/w.bin", "", "..", "w.bin\0"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str):
    (tmp_path / "w.bin").write_bytes(numbers(16, 4).tobytes())

    with pytest.raises(ModelError, match="is not a file of its folder"):
        load(outside(linear(tmp_path / "model"), location))


@pytest.mark.parametrize("kind", ["symlink", "device", "fifo", "folder", "nothing"])
def test_weights_in_what_is_no_plain_file_are_refused(tmp_path: Path, kind: str):
    path = outside(linear(tmp_path / "model"), "w.bin")
    place = path.with_name("w.bin")
    if kind == "symlink":
        (tmp_path / "secret").write_bytes(numbers(16, 4).tobytes())
        place.symlink_to(tmp_path / "secret")
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()

    with pytest.raises(ModelError, match="which is not there: upload it"):
        load(path)


@pytest.mark.parametrize(
    "said",
    [
        {"offset": "1"},
        {"offset": "-4"},
        {"length": "255"},
        {"length": "99999999999999999999"},
        {"offset": "0x10"},
        {"offset": "99999999999999999999"},
    ],
    ids=str,
)
def test_weights_past_the_end_of_their_file_are_refused(tmp_path: Path, said: dict[str, str]):
    path = outside(linear(tmp_path), "w.bin", **said)
    path.with_name("w.bin").write_bytes(numbers(16, 4).tobytes())

    with pytest.raises(ModelError, match="tensor 'w' should be 256 bytes"):
        load(path)


def test_weights_in_a_second_file_are_read(tmp_path: Path):
    inside = load(linear(tmp_path / "one"))
    path = outside(linear(tmp_path / "two"), "w.bin", offset="16", length="256")
    path.with_name("w.bin").write_bytes(b"\0" * 16 + numbers(16, 4).tobytes())

    both = [next(model.module.parameters()).tolist() for model in (inside, load(path))]

    assert both[0] == both[1]


@pytest.mark.parametrize("dims", [[10**9, 10**9], [-16, -4], [16, 5], [2**62, 4]], ids=str)
def test_a_tensor_that_claims_another_size_is_refused_before_memory_is_taken(tmp_path: Path, dims: list[int]):
    def change(model: onnx.ModelProto) -> None:
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)

    with pytest.raises(ModelError, match=r"tensor 'w' of shape .* has 256 bytes where"):
        load(edited(linear(tmp_path), change))


def node(*, domain: str = "", op: str = "Relu", **said: Any) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node(op, ["flat"], ["more"], name="extra", domain=domain, **said))
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def graph_of(deep: int) -> onnx.GraphProto:
    inner = [helper.make_node("If", ["x"], ["y"], then_branch=graph_of(deep - 1))] if deep else []
    return helper.make_graph(inner, "g", [], [])


def with_function(model: onnx.ModelProto) -> None:
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], [], imports))


def nan(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((16, 4), np.nan, np.float32), "w"))


REFUSED: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "custom operator": (node(domain="acme"), "'extra' is acme::Relu, an operator that needs a library"),
    "contrib of hardware": (node(domain="com.microsoft.nchwc"), "needs a library of its own"),
    "QDQ": (node(op="DynamicQuantizeLinear"), "quantized already: give the model before quantization"),
    "QLinear": (node(op="QLinearMatMul"), "quantized already"),
    "4 bit": (node(domain="com.microsoft", op="MatMulNBits"), "quantized already"),
    "unknown operator": (node(op="NoSuchOperator"), "ONNX Runtime does not open the ONNX file"),
    "opset 3": (lambda model: setattr(model.opset_import[0], "version", 3), "has opset 3; 7 to"),
    "opset 99": (lambda model: setattr(model.opset_import[0], "version", 99), "has opset 99; 7 to"),
    "no opset": (lambda model: model.ClearField("opset_import"), "has opset 0"),
    "functions": (with_function, "onnx.inliner.inline_local_functions"),
    "no nodes": (lambda model: model.graph.ClearField("node"), "no nodes"),
    "deep branches": (node(op="If", then_branch=graph_of(20)), "16 levels deep"),
    "two of one name": (
        lambda model: model.graph.initializer.append(model.graph.initializer[0]),
        "two tensors named 'w'",
    ),
    "sparse": (lambda model: model.graph.sparse_initializer.add(), "sparse initializers"),
    "NaN": (nan, "NaN or infinity in fc"),
    "no output": (lambda model: model.graph.ClearField("output"), "is not a valid ONNX file"),
    "string weights": (
        lambda model: setattr(model.graph.initializer[0], "data_type", TensorProto.STRING),
        "ONNX Runtime does not open",
    ),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=list(REFUSED))
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, change: Callable[[onnx.ModelProto], object], words: str
):
    with pytest.raises(ModelError) as caught:
        load(edited(linear(tmp_path), change))

    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((8, 1, 4, 4), r"made for batches of 8.*dynamic_axes=\{'image': \{0: 'batch'\}\}"),
        (("batch", 16, 16, 1), r"export it with images as \[N, C, H, W\]"),
        (("batch", "c", 4, 4), "a stated number of channels"),
        (("batch", 16), "an image classifier has one input of floats"),
    ],
    ids=["fixed batch", "channels last", "free channels", "two axes"],
)
def test_an_input_that_is_no_batch_of_images_is_refused(
    tmp_path: Path, shape: tuple[int | str, ...], words: str
):
    with pytest.raises(ModelError, match=words):
        load(linear(tmp_path, shape=shape))


def test_scores_that_do_not_grow_with_the_batch_are_refused(tmp_path: Path):
    nodes = [
        helper.make_node("Reshape", ["image", "one"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
    ]
    path = made(tmp_path, nodes, {"w": numbers(32, 4), "one": np.array([1, -1])})

    with pytest.raises(ModelError, match=r"has the shape \[1, 4\].*export with a\s+free first axis"):
        load(path)


def test_a_task_that_onnx_files_are_not_taken_for_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="not for 'causal-lm': give the model as config"):
        load_onnx(linear(tmp_path), Task.causal_lm)


def test_a_folder_with_two_onnx_files_is_refused(tmp_path: Path):
    linear(tmp_path)
    (tmp_path / "other.onnx").write_bytes((tmp_path / "model.onnx").read_bytes())

    with pytest.raises(ModelError, match=r"2 ONNX files \(model.onnx, other.onnx\): give the uri of one"):
        load_model(tmp_path, Task.image_classification)


def test_names_in_messages_are_short_and_printable(tmp_path: Path):
    with pytest.raises(ModelError) as caught:
        load(edited(linear(tmp_path), node(op="Relu", domain="a\x1b[31m" + "x" * 5000)))

    assert len(str(caught.value)) < 500
    assert "\x1b" not in str(caught.value)


def test_mutated_files_load_or_are_refused(tmp_path: Path):
    onnx_models.cnn(tmp_path)
    path = tmp_path / "model.onnx"
    whole, dice = path.read_bytes(), random.Random(0)
    refused = 0

    for _ in range(MUTATIONS):
        spoilt = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            spoilt[dice.randrange(len(spoilt))] = dice.randrange(256)
        path.write_bytes(spoilt)
        try:
            load(path)
        except ModelError:
            refused += 1

    assert 0 < refused < MUTATIONS
