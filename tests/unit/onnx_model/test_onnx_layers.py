"""Which nodes of an ONNX file become layers, and in which layout."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from schemas.task import Task
from tests import onnx_models
from tests.onnx_models import made, numbers
from workers.models.from_onnx import load_onnx
from workers.models.loaded import LoadedModel
from workers.pruning.layers import prunable_layers

FLAT = helper.make_node("Flatten", ["image"], ["flat"])


def load(path: Path) -> LoadedModel:
    return load_onnx(path, Task.image_classification)


def weights(model: LoadedModel) -> dict[str, torch.Tensor]:
    return {layer.name: layer.weight.detach() for layer in prunable_layers(model.module)}


def scores_with_zeros(model: LoadedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the model with its first layer's weights zeroed, and the images."""
    images = torch.randn(3, 1, 4, 4)
    with torch.no_grad():
        next(iter(prunable_layers(model.module))).weight.zero_()
        return model.logits({"image": images}), images


def test_an_exported_convolution_net_has_the_layers_that_it_had_in_pytorch(tmp_path: Path):
    module = onnx_models.cnn(tmp_path)

    model = load(tmp_path / "model.onnx")

    expected = {layer.name: layer.weight for layer in prunable_layers(module)}
    found = prunable_layers(model.module)
    assert [layer.name for layer in found] == list(expected)
    for layer in found[1:]:  # the exporters fold the batch norm into the first
        assert torch.equal(layer.weight, expected[layer.name])
    assert (model.classes, model.image_size, model.image_channels) == (4, (16, 16), 1)


def test_every_linear_layer_of_an_exported_bert_is_found_in_pytorchs_layout(tmp_path: Path):
    module = onnx_models.bert(tmp_path)

    model = load_onnx(tmp_path / "model.onnx", Task.text_classification)

    expected = [part.weight for part in module.modules() if isinstance(part, nn.Linear)]
    found = [layer.weight for layer in prunable_layers(model.module)]
    assert len(found) == len(expected)
    for weight in expected:
        assert any(weight.shape == other.shape and torch.equal(weight, other) for other in found)


@pytest.mark.parametrize(
    ("node", "stored"),
    [
        (helper.make_node("MatMul", ["flat", "w"], ["scores"]), (16, 4)),
        (helper.make_node("Gemm", ["flat", "w"], ["scores"]), (16, 4)),
        (helper.make_node("Gemm", ["flat", "w"], ["scores"], transB=1), (4, 16)),
    ],
    ids=["MatMul", "Gemm", "Gemm transB"],
)
def test_a_weight_on_the_right_has_outputs_first(
    tmp_path: Path, node: onnx.NodeProto, stored: tuple[int, int]
):
    model = load(made(tmp_path, [FLAT, node], {"w": numbers(*stored)}))
    images = torch.randn(3, 1, 4, 4)

    ((_, weight),) = weights(model).items()

    assert weight.shape == (4, 16)
    assert torch.allclose(model.logits({"image": images}), images.flatten(1) @ weight.t(), atol=1e-5)


def test_a_weight_on_the_left_has_outputs_first(tmp_path: Path):
    nodes = [
        FLAT,
        helper.make_node("Transpose", ["flat"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["w", "columns"], ["turned"]),
        helper.make_node("Transpose", ["turned"], ["scores"], perm=[1, 0]),
    ]
    model = load(made(tmp_path, nodes, {"w": numbers(4, 16)}))

    ((_, weight),) = weights(model).items()

    assert np.array_equal(weight.numpy(), numbers(4, 16))
    seen = read_by_layers(model, {"image": torch.randn(3, 1, 4, 4)})
    assert [tuple(one.shape) for one in seen] == [(3, 16)]


def read_by_layers(model: LoadedModel, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    handles = [
        layer.module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        for layer in prunable_layers(model.module)
    ]
    model.logits(batch)
    for handle in handles:
        handle.remove()
    return seen


def test_a_weight_behind_a_transpose_is_found(tmp_path: Path):
    nodes = [
        FLAT,
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["flat", "turned"], ["scores"]),
    ]
    model = load(made(tmp_path, nodes, {"w": numbers(4, 16)}))

    ((_, weight),) = weights(model).items()

    assert np.array_equal(weight.numpy(), numbers(4, 16))


def test_a_weight_in_a_constant_node_is_found(tmp_path: Path):
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(numbers(16, 4)))
    nodes = [FLAT, constant, helper.make_node("MatMul", ["flat", "w"], ["scores"])]
    model = load(made(tmp_path, nodes, {}))

    scores, _ = scores_with_zeros(model)

    assert not scores.any()


def test_a_weight_that_two_nodes_read_is_one_layer(tmp_path: Path):
    nodes = [
        FLAT,
        helper.make_node("MatMul", ["flat", "w"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "w"], ["again"]),
        helper.make_node("MatMul", ["again", "v"], ["scores"]),
    ]
    model = load(made(tmp_path, nodes, {"w": numbers(16, 16), "v": numbers(16, 4)}))

    assert len(weights(model)) == 2
    assert len(read_by_layers(model, {"image": torch.randn(1, 1, 4, 4)})) == 3


def test_a_weight_that_is_read_in_two_orientations_stays_dense_and_the_report_says_so(tmp_path: Path):
    nodes = [
        FLAT,
        helper.make_node("MatMul", ["flat", "w"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w"], ["again"], transB=1),
        helper.make_node("MatMul", ["again", "v"], ["scores"]),
    ]
    model = load(made(tmp_path, nodes, {"w": numbers(16, 16), "v": numbers(16, 4)}))

    assert [weight.shape for weight in weights(model).values()] == [(4, 16)]
    assert "256 numbers" in model.notes[0]
    assert "w (layers read it in several ways)" in model.notes[0]


def test_a_weight_that_another_node_reads_stays_dense(tmp_path: Path):
    nodes = [
        FLAT,
        helper.make_node("MatMul", ["flat", "w"], ["hidden"]),
        helper.make_node("ReduceMean", ["w"], ["mean"]),
        helper.make_node("Add", ["hidden", "mean"], ["moved"]),
        helper.make_node("MatMul", ["moved", "v"], ["scores"]),
    ]
    model = load(made(tmp_path, nodes, {"w": numbers(16, 16), "v": numbers(16, 4)}))

    assert len(weights(model)) == 1
    assert "w (ReduceMean reads it)" in model.notes[0]


def test_an_embedding_that_is_the_head_too_stays_dense_by_default(tmp_path: Path):
    nodes = [
        FLAT,
        helper.make_node("MatMul", ["flat", "v"], ["hidden"]),
        helper.make_node("ArgMax", ["hidden"], ["ids"], axis=1, keepdims=0),
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Gemm", ["rows", "table"], ["scores"], transB=1),
    ]
    model = load(made(tmp_path, nodes, {"v": numbers(16, 4), "table": numbers(4, 8)}))

    kept = {tuple(layer.weight.shape): layer.kept for layer in prunable_layers(model.module)}

    assert kept[(4, 16)] is None
    assert "embedding" in str(kept[(4, 8)])


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_keeps_groups_strides_and_uneven_padding(tmp_path: Path, groups: int):
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["hidden"], pads=[0, 0, 1, 1], strides=[2, 2]),
        helper.make_node("Conv", ["hidden", "w"], ["maps"], group=groups, auto_pad="SAME_LOWER"),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    stored = {"first": numbers(4, 1, 2, 2), "w": numbers(6, 4 // groups, 2, 2)}
    model = load(made(tmp_path, nodes, stored, shape=("batch", 1, 5, 5)))
    images, outputs = torch.randn(3, 1, 5, 5), []
    layers = prunable_layers(model.module)
    for layer in layers:
        layer.module.register_forward_hook(lambda *given: outputs.append(given[2]))

    scores = model.logits({"image": images})

    assert [layer.kind for layer in layers] == ["Conv2d", "Conv2d"]
    assert torch.allclose(outputs[1].mean((2, 3)), scores, atol=1e-5)


def test_a_transposed_convolution_does_in_pytorch_what_it_does_in_the_file(tmp_path: Path):
    options = {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}
    nodes = [
        helper.make_node("ConvTranspose", ["image", "w"], ["maps"], **options),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    model = load(made(tmp_path, nodes, {"w": numbers(1, 6, 3, 3)}))
    outputs = []
    (layer,) = prunable_layers(model.module)
    layer.module.register_forward_hook(lambda *given: outputs.append(given[2]))

    scores = model.logits({"image": torch.randn(3, 1, 4, 4)})

    assert torch.allclose(outputs[0].mean((2, 3)), scores, atol=1e-5)


def test_weights_inside_a_branch_stay_dense_and_the_report_says_so(tmp_path: Path):
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["hidden", "inside"], ["branch"])],
        "branch",
        [],
        [helper.make_tensor_value_info("branch", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(numbers(4, 4), "inside")],
    )
    nodes = [
        FLAT,
        helper.make_node("MatMul", ["flat", "w"], ["hidden"]),
        helper.make_node("If", ["yes"], ["scores"], then_branch=inner, else_branch=inner),
    ]
    model = load(made(tmp_path, nodes, {"w": numbers(16, 4), "yes": np.array(True)}))

    scores, _ = scores_with_zeros(model)

    assert not scores.any()
    assert len(weights(model)) == 1
    assert "the first of 2 tensors is inside" in model.notes[0]


def test_names_that_pytorch_cannot_have_are_changed_and_stay_apart(tmp_path: Path):
    nodes = [
        FLAT,
        helper.make_node("MatMul", ["flat", "a"], ["h1"], name="/plan/forward/MatMul"),
        helper.make_node("MatMul", ["h1", "b"], ["h2"], name="plan.forward"),
        helper.make_node("MatMul", ["h2", "c"], ["h3"], name="../..//"),
        helper.make_node("MatMul", ["h3", "d"], ["scores"], name="<script>\n"),
    ]
    stored = {"a": numbers(16, 4), "b": numbers(4, 4), "c": numbers(4, 4), "d": numbers(4, 4)}

    names = list(weights(load(made(tmp_path, nodes, stored))))

    assert names == ["plan_.forward_", "plan_.forward__", "c", "_script__"]


def test_a_layer_has_the_name_of_the_module_that_the_exporter_wrote_down(tmp_path: Path):
    node = helper.make_node("MatMul", ["flat", "val_7"], ["scores"], name="node_MatMul_86")
    scopes = "['', 'encoder', 'encoder.query', 'linear_3']"
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)

    names = list(weights(load(made(tmp_path, [FLAT, node], {"val_7": numbers(16, 4)}))))

    assert names == ["encoder.query"]
