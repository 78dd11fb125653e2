"""2:4 in ONNX files: the right axis of each operator, through what an exporter puts in between."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from schemas.inspection import InspectedLayer
from workers.benchmark.eligibility import weight_layers

Array = NDArray[np.floating]


def two_of_four(shape: tuple[int, ...], axis: int) -> Array:
    """Random numbers whose every four neighbours along `axis` are two zeros and two others."""
    weight = np.random.default_rng(0).uniform(0.5, 1, shape).astype(np.float32)
    turned = np.moveaxis(weight, axis, -1)
    turned[..., 0::4] = 0
    turned[..., 3::4] = 0
    return weight


def saved(path: Path, nodes: list[onnx.NodeProto], **weights: Array) -> list[InspectedLayer]:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph), path)
    return weight_layers(path)


CASES = {
    "conv": (helper.make_node("Conv", ["x", "w"], ["y"]), (32, 16, 3, 3), 1),
    "1x1 conv": (helper.make_node("Conv", ["x", "w"], ["y"]), (32, 16, 1, 1), 1),
    "grouped conv": (helper.make_node("Conv", ["x", "w"], ["y"], group=2), (32, 16, 3, 3), 1),
    "gemm": (helper.make_node("Gemm", ["x", "w"], ["y"]), (16, 32), 0),
    "gemm, transB": (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), (32, 16), 1),
    "matmul": (helper.make_node("MatMul", ["x", "w"], ["y"]), (16, 32), 0),
    "batched matmul": (helper.make_node("MatMul", ["x", "w"], ["y"]), (3, 16, 32), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_the_pattern_is_found_along_the_axis_that_is_summed_over(name: str, tmp_path: Path):
    node, shape, axis = CASES[name]

    (found,) = saved(tmp_path / "m.onnx", [node], w=two_of_four(shape, axis))

    assert (found.inputs, found.outputs, found.zeros) == (16, 32, 0.5)
    assert found.is_eligible


@pytest.mark.parametrize("name", CASES)
def test_along_another_axis_it_is_no_pattern(name: str, tmp_path: Path):
    node, shape, axis = CASES[name]
    other = 0 if axis == 1 and len(shape) != 3 else len(shape) - 1

    (found,) = saved(tmp_path / "m.onnx", [node], w=two_of_four(shape, other))

    assert not found.holds


def test_one_bad_group_is_enough(tmp_path: Path):
    node, shape, axis = CASES["gemm, transB"]
    weight = two_of_four(shape, axis)
    weight[5, 4] = 1

    (found,) = saved(tmp_path / "m.onnx", [node], w=weight)

    assert not found.holds


def test_many_zeros_without_the_pattern_are_not_eligible(tmp_path: Path):
    node, shape, _ = CASES["matmul"]
    weight = np.random.default_rng(0).uniform(0.5, 1, shape).astype(np.float32)
    weight[4:] = 0  # 75 %, and four of four stay in the first group

    (found,) = saved(tmp_path / "m.onnx", [node], w=weight)

    assert found.zeros == 0.75
    assert not found.is_eligible


def test_a_transposition_a_cast_and_quantization_are_looked_through(tmp_path: Path):
    whole = (two_of_four((32, 16), 1) * 100).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "point"], ["float"]),
        helper.make_node("Cast", ["float"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Transpose", ["half"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    shifted = (whole.astype(np.int16) + np.where(whole == 0, 7, 7)).clip(-128, 127).astype(np.int8)

    (found,) = saved(tmp_path / "m.onnx", nodes, w=shifted, scale=np.float32(0.1), point=np.array(7, np.int8))

    assert (found.inputs, found.outputs) == (16, 32)
    assert found.holds


def test_a_constant_node_is_a_weight_too(tmp_path: Path):
    weight = numpy_helper.from_array(two_of_four((16, 32), 0))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="layer"),
    ]

    (found,) = saved(tmp_path / "m.onnx", nodes)

    assert (found.name, found.is_eligible) == ("layer", True)


def test_what_is_computed_is_no_weight(tmp_path: Path):
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("MatMul", ["x", "r"], ["y"])]

    assert saved(tmp_path / "m.onnx", nodes) == []


def test_a_depthwise_convolution_can_never_take_it(tmp_path: Path):
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=32)

    (found,) = saved(tmp_path / "m.onnx", [node], w=np.ones((32, 1, 3, 3), np.float32))

    assert found.obstacles == [
        "depthwise: each output sums over one channel, and nothing can be left out of it"
    ]


def test_advice_names_the_multiples_that_would_do(tmp_path: Path):
    node = helper.make_node("Conv", ["x", "w"], ["y"])

    (found,) = saved(tmp_path / "m.onnx", [node], w=two_of_four((30, 20, 3, 3), 1))

    assert found.holds
    assert found.obstacles == [
        "20 inputs: sparse kernels take multiples of 16, 32 would do",
        "30 outputs: sparse kernels take multiples of 8, 32 would do",
    ]
    assert [doubt.partition(":")[0] for doubt in found.doubts] == ["float32", "30 wide"]


def test_a_wide_layer_in_half_precision_has_no_doubts(tmp_path: Path):
    node, _, axis = CASES["matmul"]

    (found,) = saved(tmp_path / "m.onnx", [node], w=two_of_four((256, 512), axis).astype(np.float16))

    assert (found.dtype, found.doubts) == ("float16", [])


def test_weights_beside_the_file_are_read(tmp_path: Path):
    node, shape, axis = CASES["gemm"]
    saved(tmp_path / "m.onnx", [node], w=two_of_four(shape, axis))
    onnx.save(
        onnx.load(tmp_path / "m.onnx"),
        tmp_path / "big.onnx",
        save_as_external_data=True,
        location="big.onnx.data",
        size_threshold=0,
    )

    assert weight_layers(tmp_path / "big.onnx")[0].is_eligible


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(b"\x08\xffnot a model")

    with pytest.raises(ValueError, match=r"m\.onnx is not an ONNX file"):
        weight_layers(tmp_path / "m.onnx")


class Net(nn.Module):
    """Batch norm folds into the convolution when it is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16)
        self.linear = nn.Linear(16, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.conv(images)).relu().mean(dim=(2, 3))
        out: torch.Tensor = self.linear(features)
        return out


@pytest.mark.parametrize("half", [False, True])
def test_folding_and_half_precision_keep_the_pattern(half: bool, tmp_path: Path):
    net = Net().eval()
    with torch.no_grad():
        for layer in (net.conv, net.linear):
            layer.weight.copy_(torch.from_numpy(two_of_four(tuple(layer.weight.shape), 1)))
    example = torch.randn(2, 16, 8, 8)
    if half:
        net, example = net.half(), example.half()

    torch.onnx.export(net, (example,), tmp_path / "m.onnx", dynamo=True, verbose=False)

    assert [layer.is_eligible for layer in weight_layers(tmp_path / "m.onnx")] == [True, True]
