"""Zeros of a float file in its INT8 one."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from schemas.quantize import Int8Dynamic, Int8Static
from tests.unit.quantization.files import graph, words
from workers.quantization.int8 import quantize_onnx
from workers.quantization.zeros import broken_patterns, check_zeros, tensors_with_pattern


def weight_of_2_4() -> np.ndarray:
    """[16, 16], two of each four in the second axis zero."""
    weight = np.random.default_rng(0).uniform(0.5, 1, (16, 16)).astype(np.float32)
    weight.reshape(-1, 4)[:, ::2] = 0
    return weight


def gemm(path: Path, weight: np.ndarray, *, turned: bool) -> Path:
    """One Gemm with the weight [O, I] as torch has it, or [I, O] where it is not `turned`."""
    stored = weight if turned else weight.T.copy()
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer", transB=int(turned))
    return graph(path, [node], width=16, w=stored, b=np.zeros(16, np.float32))


def inputs() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((16, 16)).astype(np.float32)}


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("spec", [Int8Dynamic(), Int8Static(samples=16)])
def test_a_linear_layer_is_found_however_its_weight_lies(
    spec: Int8Dynamic | Int8Static, turned: bool, tmp_path: Path
):
    source = gemm(tmp_path / "m.onnx", weight_of_2_4(), turned=turned)

    check = quantize_onnx(source, tmp_path / "int8.onnx", spec, [inputs()])

    assert (check.layers, check.float_layers) == (1, ())
    assert (check.weights, check.zeros, check.lost) == (256, 128, 0)
    model, int8 = onnx.load(source), onnx.load(tmp_path / "int8.onnx")
    assert tensors_with_pattern(model, 2, 4) == ["w"]
    assert broken_patterns(model, int8, 2, 4) == []


def spoil(path: Path, name: str) -> tuple[onnx.ModelProto, int]:
    """The file with one more in each weight of `name`, and how many zeros that moved."""
    model = onnx.load(path)
    (weight,) = (one for one in model.graph.initializer if one.name == name)
    values = numpy_helper.to_array(weight).copy()
    moved = int((values == 0).sum())
    values[values == 0] = 1
    weight.CopyFrom(numpy_helper.from_array(values, name))
    return model, moved


def test_a_broken_pattern_and_lost_zeros_are_named(tmp_path: Path):
    source = gemm(tmp_path / "m.onnx", weight_of_2_4(), turned=True)
    quantize_onnx(source, tmp_path / "int8.onnx", Int8Dynamic(), iter(()))

    spoilt, moved = spoil(tmp_path / "int8.onnx", "w_Transposed_quantized")

    assert broken_patterns(onnx.load(source), spoilt, 2, 4) == ["w"]
    assert check_zeros(onnx.load(source), spoilt).lost == moved == 128


def test_a_zero_point_that_is_not_zero_is_where_the_zeros_are(bert_file: Path, tmp_path: Path):
    check = quantize_onnx(bert_file, tmp_path / "int8.onnx", Int8Static(samples=32), [words(32, seed=1)])

    model = onnx.load(tmp_path / "int8.onnx")
    (point,) = (
        int(numpy_helper.to_array(one).ravel()[0])
        for one in model.graph.initializer
        if one.name.endswith("word_embeddings.weight_zero_point")
    )
    assert point != 0
    assert check.zeros == 16  # the row of [PAD]
    assert check.lost == 0


def test_what_stays_in_float_is_told_by_kind(bert_file: Path, tmp_path: Path):
    check = quantize_onnx(bert_file, tmp_path / "int8.onnx", Int8Dynamic(), iter(()))

    assert check.float_places == (("embeddings", 3),)
    assert check.layers == 14
    assert "In float stay: embeddings 3" in check.sentence()
