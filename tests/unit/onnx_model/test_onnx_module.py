"""An ONNX file as a module: ONNX Runtime's scores with PyTorch's weights, and what watchers of layers see."""

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import load_file
from torch import nn

from schemas.allocation import UniformAllocation
from schemas.criteria import Magnitude, Random
from schemas.method import SemiStructured, Unstructured
from schemas.task import Task
from tests import onnx_models, tiny
from tests.onnx_models import made, numbers
from workers.figures import macs_of
from workers.models.from_onnx import load_onnx
from workers.models.loaded import LoadedModel
from workers.models.save import save_model
from workers.onnx_model.module import OnnxModule
from workers.onnx_model.write import write_onnx
from workers.pruning.cut import cut
from workers.pruning.layers import all_of, prunable_layers
from workers.pruning.masks import chosen
from workers.pruning.nm import holds


def load(path: Path) -> tuple[LoadedModel, OnnxModule]:
    model = load_onnx(path, Task.image_classification)
    assert isinstance(model.module, OnnxModule)
    return model, model.module


def images(samples: int = 3) -> torch.Tensor:
    return torch.randn(samples, 1, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(0))


def pruned(module: nn.Module, method: Unstructured | SemiStructured, share: float = 0.5) -> None:
    cut(
        chosen(module, method),
        method,
        share,
        calibration=None,
        evaluate=None,
        movement=None,
        seed=0,
        number=1,
    )


METHODS = [
    Unstructured(criterion=Magnitude()),
    Unstructured(criterion=Random()),
    Unstructured(allocation=UniformAllocation()),
    SemiStructured(),
]


@pytest.mark.parametrize("method", METHODS, ids=["global", "random", "uniform", "2:4"])
def test_the_same_zeros_give_the_same_scores_as_in_pytorch(
    tmp_path: Path, method: Unstructured | SemiStructured
):
    reference = onnx_models.cnn(tmp_path)
    model, module = load(tmp_path / "model.onnx")

    pruned(module, method)
    theirs = {layer.name: layer.weight for layer in prunable_layers(reference)}
    with torch.no_grad():
        for layer in prunable_layers(module):
            theirs[layer.name].mul_((layer.weight != 0).float())
        expected, scores = reference(images()), model.logits({"image": images()})

    assert (scores - expected).abs().max() < 1e-4
    assert any(bool((weight == 0).any()) for weight in theirs.values())


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_exactly_the_asked_share_is_zero_in_both_files(tmp_path: Path, share: float):
    onnx_models.cnn(tmp_path)
    model, module = load(tmp_path / "model.onnx")
    total = sum(layer.weight.numel() for layer in prunable_layers(module))

    pruned(module, Unstructured(), share)
    (file,) = write_onnx(module, tmp_path / "pruned.onnx", largest=2**30)
    save_model(model, tmp_path / "out")

    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(file).graph.initializer}
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    layers = ("conv1.weight", "depthwise.weight", "pointwise.weight", "fc.weight")
    names = [name for name in stored if name.endswith(layers) or (stored[name].ndim == 4)]
    assert sum(int((stored[name] == 0).sum()) for name in names) == round(share * total)
    assert all(np.array_equal(stored[name], value.numpy()) for name, value in tensors.items())


def test_the_written_file_gives_the_modules_scores_under_the_old_names(tmp_path: Path):
    onnx_models.cnn(tmp_path)
    model, module = load(tmp_path / "model.onnx")

    pruned(module, Unstructured())
    (file,) = write_onnx(module, tmp_path / "pruned.onnx", largest=2**30)

    session = onnxruntime.InferenceSession(file)
    (scores,) = session.run(["scores"], {"image": images().numpy()})
    assert np.allclose(scores, model.logits({"image": images()}).numpy(), atol=1e-5)
    onnx.checker.check_model(onnx.load(file), full_check=True)


def test_weights_past_the_limit_go_to_a_second_file_that_loads_again(tmp_path: Path):
    onnx_models.cnn(tmp_path / "model")
    model, module = load(tmp_path / "model" / "model.onnx")
    (tmp_path / "out").mkdir()

    files = write_onnx(module, tmp_path / "out" / "model.onnx", largest=1000)
    again, _ = load(files[0])

    assert [file.name for file in files] == ["model.onnx", "model.onnx.data"]
    assert torch.equal(again.logits({"image": images()}), model.logits({"image": images()}))
    assert onnxruntime.InferenceSession(files[0]).run(None, {"image": images().numpy()})


@pytest.mark.parametrize("stored", [(16, 4), (4, 16)], ids=["[in, out]", "[out, in]"])
def test_two_of_four_holds_along_the_inputs_whatever_the_files_layout(
    tmp_path: Path, stored: tuple[int, int]
):
    node = helper.make_node("Gemm", ["flat", "w"], ["scores"], transB=int(stored == (4, 16)))
    flat = helper.make_node("Flatten", ["image"], ["flat"])
    _, module = load(made(tmp_path, [flat, node], {"w": numbers(*stored)}))

    pruned(module, SemiStructured())

    (value,) = [value for name, value in module.initializers() if name == "w"]
    outputs_first = value if stored == (4, 16) else value.t()
    assert value.shape == stored
    assert holds(outputs_first.contiguous(), 2, 4, kind="Linear")
    assert int((value == 0).sum()) == 32


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_weights_of_another_float_type_are_pruned_in_it(tmp_path: Path, dtype: type):
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype))),
        helper.make_node("Flatten", ["cast"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Cast", ["product"], ["scores"], to=1),
    ]
    model, module = load(made(tmp_path, nodes, {"w": numbers(16, 4).astype(dtype)}))

    pruned(module, Unstructured())
    (file,) = write_onnx(module, tmp_path / "pruned.onnx", largest=2**30)

    stored = numpy_helper.to_array(onnx.load(file).graph.initializer[0])
    kept = stored != 0
    (scores,) = onnxruntime.InferenceSession(file).run(None, {"image": numbers(3, 1, 4, 4)})
    assert np.array_equal(model.logits({"image": torch.from_numpy(numbers(3, 1, 4, 4))}).numpy(), scores)
    assert stored.dtype == dtype
    assert int(kept.sum()) == 32
    assert np.array_equal(stored[kept], numbers(16, 4).astype(dtype)[kept])


def test_weights_in_bfloat16_are_pruned_and_the_others_keep_their_bits(tmp_path: Path):
    bits = (numbers(16, 4).view(np.uint32) >> 16).astype(np.uint16)
    weight = helper.make_tensor("w", onnx.TensorProto.BFLOAT16, (16, 4), bits.tobytes(), raw=True)
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Cast", ["w"], ["wide"], to=1),
        helper.make_node("MatMul", ["flat", "wide"], ["scores"]),
    ]
    path = made(tmp_path, nodes, {})
    file = onnx.load(path)
    file.graph.initializer.append(weight)
    onnx.save(file, path)

    _, module = load(path)
    pruned(module, Unstructured())
    (written,) = write_onnx(module, tmp_path / "pruned.onnx", largest=2**30)

    (stored,) = onnx.load(written).graph.initializer
    after = np.frombuffer(stored.raw_data, np.uint16)
    assert stored.data_type == onnx.TensorProto.BFLOAT16
    assert int((after == 0).sum()) == 32
    assert np.array_equal(after[after != 0], bits.flatten()[after != 0])


def test_a_change_in_place_and_a_load_are_both_seen_by_the_next_pass(tmp_path: Path):
    onnx_models.linear(tmp_path)
    model, module = load(tmp_path / "model.onnx")
    ones = {"image": torch.ones(1, 1, 4, 4)}
    before, state = model.logits(ones), copy.deepcopy(module.state_dict())

    with torch.no_grad():
        next(module.parameters()).mul_(2.0)
    doubled = model.logits(ones)
    module.load_state_dict(state)

    assert torch.allclose(doubled, 2 * before, atol=1e-5)
    assert torch.equal(model.logits(ones), before)


def test_a_copy_has_weights_of_its_own(tmp_path: Path):
    onnx_models.linear(tmp_path)
    model, module = load(tmp_path / "model.onnx")
    ones = {"image": torch.ones(1, 1, 4, 4)}
    before = model.logits(ones)

    other = copy.deepcopy(module)
    with torch.no_grad():
        next(other.parameters()).zero_()

    assert torch.equal(model.logits(ones), before)
    assert not other(**ones).any()


def test_watchers_of_layers_see_what_they_see_in_pytorch(tmp_path: Path):
    reference = onnx_models.cnn(tmp_path)
    _, module = load(tmp_path / "model.onnx")

    seen, expected = inputs_of_layers(module), inputs_of_layers(reference)

    assert list(seen) == list(expected)
    assert torch.allclose(seen["fc"], expected["fc"], atol=1e-5)
    assert torch.allclose(seen["pointwise"], expected["pointwise"], atol=1e-5)
    assert torch.allclose(seen["depthwise"][:, :, 1:-1, 1:-1], expected["depthwise"], atol=1e-5)


def inputs_of_layers(module: nn.Module) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    for layer in prunable_layers(module):

        def note(_: nn.Module, given: tuple[torch.Tensor], name: str = layer.name) -> None:
            seen[name] = given[0]

        layer.module.register_forward_pre_hook(note)
    with torch.no_grad():
        module(image=images())
    return seen


def test_arithmetic_is_counted_as_in_pytorch(tmp_path: Path):
    onnx_models.cnn(tmp_path)
    model, module = load(tmp_path / "model.onnx")

    pruned(module, Unstructured())
    macs, effective = macs_of(model, all_of(module).layers, {"image": images(1)})

    assert macs == 16 * 16 * 8 * 9 + 8 * 8 * 8 * 9 + 8 * 8 * 8 * 16 + 16 * 4
    assert effective is not None
    assert effective < macs
