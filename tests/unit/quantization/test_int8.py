"""INT8 by ONNX Runtime's quantizer, on exported tiny models."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from schemas.quantize import Int8Dynamic, Int8Static
from schemas.task import Task
from tests import tiny
from workers.export import export_onnx
from workers.models.load import load_model
from workers.models.loaded import LoadedModel
from workers.pruning.layers import prunable_layers
from workers.pruning.nm import eligible, nm_keep
from workers.quantization.int8 import QuantizationFailed, quantize_onnx
from workers.quantization.zeros import check_zeros, tensors_with_pattern


def pruned_resnet(folder: Path) -> LoadedModel:
    """2:4 wherever the shape takes it."""
    model = load_model(tiny.resnet(folder), Task.image_classification)
    with torch.no_grad():
        for layer in prunable_layers(model.module):
            if eligible(layer, 2, 4) is None:
                layer.weight.mul_(nm_keep(layer.weight, layer.weight.abs(), 2, 4, kind=layer.kind))
    return model


def feeds(samples: int) -> dict[str, np.ndarray]:
    pixels, _ = tiny.images(samples, seed=3)
    return {"pixel_values": ((pixels / 255 - 0.5) / 0.5).astype(np.float32)[:, None]}


def exported(model: LoadedModel, path: Path) -> Path:
    example = {name: torch.from_numpy(value) for name, value in feeds(2).items()}
    return export_onnx(model, path, example).files[0]


def scores(path: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    (found,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)
    return found


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
def test_static_int8_answers_much_as_the_float_model_in_a_smaller_file(calibration: str, tmp_path: Path):
    source = exported(pruned_resnet(tmp_path / "model"), tmp_path / "model.onnx")
    batches = [feeds(16) for _ in range(2)]
    spec = Int8Static(samples=32, calibration=calibration)

    check = quantize_onnx(source, tmp_path / "int8.onnx", spec, batches)

    expected, found = scores(source, feeds(8)), scores(tmp_path / "int8.onnx", feeds(8))
    assert np.abs(found - expected).max() < 0.25 * np.abs(expected).max()
    assert (tmp_path / "int8.onnx").stat().st_size < source.stat().st_size
    assert check.layers >= 5


def test_every_zero_is_a_zero_after_it_and_two_of_four_hold(tmp_path: Path):
    source = exported(pruned_resnet(tmp_path / "model"), tmp_path / "model.onnx")

    check = quantize_onnx(source, tmp_path / "int8.onnx", Int8Static(samples=16), [feeds(16)])

    assert check.zeros > 0.3 * check.weights
    assert check.lost == 0
    assert check.zeros_after >= check.zeros
    before = tensors_with_pattern(onnx.load(source), 2, 4)
    after = tensors_with_pattern(onnx.load(tmp_path / "int8.onnx"), 2, 4)
    assert len(before) >= 3
    assert len(after) >= len(before)


def test_a_lost_zero_would_be_counted(tmp_path: Path):
    source = exported(pruned_resnet(tmp_path / "model"), tmp_path / "model.onnx")
    quantize_onnx(source, tmp_path / "int8.onnx", Int8Static(samples=16), [feeds(16)])
    model = onnx.load(tmp_path / "int8.onnx")
    spoilt = 0
    for weight in (one for one in model.graph.initializer if one.name.endswith("weight_quantized")):
        values = onnx.numpy_helper.to_array(weight).copy()
        spoilt += int((values == 0).sum())
        values[values == 0] = 1
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))

    found = check_zeros(onnx.load(source), model)

    assert 0 < found.lost <= spoilt


def test_dynamic_int8_takes_the_linear_layers_of_a_transformer(tmp_path: Path):
    model = load_model(tiny.vit(tmp_path / "model"), Task.image_classification)
    source = exported(model, tmp_path / "model.onnx")

    check = quantize_onnx(source, tmp_path / "int8.onnx", Int8Dynamic(), iter(()))

    expected, found = scores(source, feeds(8)), scores(tmp_path / "int8.onnx", feeds(8))
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    assert check.layers >= 12
    assert check.lost == 0


def test_the_same_samples_give_the_same_file(tmp_path: Path):
    source = exported(pruned_resnet(tmp_path / "model"), tmp_path / "model.onnx")

    files = []
    for name in ("a.onnx", "b.onnx"):
        quantize_onnx(source, tmp_path / name, Int8Static(samples=16), [feeds(16)])
        files.append(onnx.load(tmp_path / name).graph.initializer)

    assert [one.raw_data for one in files[0]] == [one.raw_data for one in files[1]]


def test_what_is_no_onnx_file_fails_by_its_own_name(tmp_path: Path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")

    with pytest.raises(QuantizationFailed):
        quantize_onnx(tmp_path / "broken.onnx", tmp_path / "int8.onnx", Int8Dynamic(), iter(()))


def test_a_model_with_its_weights_in_a_second_file_is_not_taken(tmp_path: Path):
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "model.onnx.data").write_bytes(b"")

    with pytest.raises(QuantizationFailed, match="second file"):
        quantize_onnx(tmp_path / "model.onnx", tmp_path / "int8.onnx", Int8Dynamic(), iter(()))
