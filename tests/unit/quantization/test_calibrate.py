"""Ranges of activations, and masks that have no part in them."""

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from schemas.quantize import Int8Static
from tests.unit.quantization.files import graph, scores, words
from workers.quantization.calibrate import masked_tensors, masking_nodes
from workers.quantization.int8 import QuantizationFailed, quantize_onnx

LARGEST = np.float32(np.finfo(np.float32).max)
SQUARE = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)


def inputs(samples: int, *, seed: int = 0, scale: float = 1) -> dict[str, np.ndarray]:
    values = np.random.default_rng(seed).standard_normal((samples, 8)) * scale
    return {"x": values.astype(np.float32)}


def two_layers(path: Path) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["hidden"], name="first"),
        helper.make_node("Relu", ["hidden"], ["live"], name="relu"),
        helper.make_node("MatMul", ["live", "v"], ["y"], name="second"),
    ]
    return graph(path, nodes, width=8, w=SQUARE, v=SQUARE.T.copy())


def masked_softmax(path: Path) -> Path:
    """Attention's inner part as it is exported: the last two scores are never looked at."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["raw"], name="raw"),
        helper.make_node("Greater", ["x", "bound"], ["live"], name="live"),
        helper.make_node("And", ["live", "seen"], ["both"], name="both"),
        helper.make_node("Where", ["both", "raw", "never"], ["masked"], name="hide"),
        helper.make_node("Softmax", ["masked"], ["shares"], name="softmax"),
        helper.make_node("MatMul", ["shares", "v"], ["y"], name="mix"),
    ]
    bound, never, seen = np.float32(-9), -LARGEST, np.arange(8) < 6
    return graph(path, nodes, width=8, w=SQUARE, v=SQUARE, bound=bound, never=never, seen=seen)


def activation_scales(path: Path) -> list[float]:
    model = onnx.load(path)
    values = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    names = [node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return [float(values[name].max()) for name in names]


def test_a_mask_is_followed_to_its_softmax_and_no_further(tmp_path: Path):
    model = onnx.load(masked_softmax(tmp_path / "m.onnx"))

    assert masked_tensors(model) == {"never", "masked"}
    assert masking_nodes(model) == ["hide", "softmax"]


def test_a_clip_to_the_largest_float_hides_nothing_after_it(tmp_path: Path):
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["clipped"], name="clip"),
        helper.make_node("MatMul", ["clipped", "w"], ["y"], name="layer"),
    ]
    path = graph(tmp_path / "m.onnx", nodes, width=8, low=np.float32(0), high=LARGEST, w=SQUARE)

    assert masking_nodes(onnx.load(path)) == ["clip"]


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
def test_scores_under_a_mask_keep_their_differences(calibration: str, tmp_path: Path):
    source = masked_softmax(tmp_path / "m.onnx")
    spec = Int8Static(samples=64, calibration=calibration)

    quantize_onnx(source, tmp_path / "int8.onnx", spec, [inputs(32), inputs(32, seed=1)])

    expected, found = scores(source, inputs(64, seed=2)), scores(tmp_path / "int8.onnx", inputs(64, seed=2))
    assert np.abs(found - expected).max() < 0.15 * np.abs(expected).max()
    assert max(activation_scales(tmp_path / "int8.onnx")) < 1


def test_attention_of_a_padded_batch_keeps_its_differences(bert_file: Path, tmp_path: Path):
    source, few = bert_file, [words(32, seed=1), words(32, seed=2)]

    quantize_onnx(source, tmp_path / "int8.onnx", Int8Static(samples=64), few)

    inputs = words(64, seed=9)
    expected, found = scores(source, inputs), scores(tmp_path / "int8.onnx", inputs)
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    assert max(activation_scales(tmp_path / "int8.onnx")) < 10


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
def test_the_last_batch_may_be_short(calibration: str, tmp_path: Path):
    source = two_layers(tmp_path / "m.onnx")
    spec = Int8Static(samples=40, calibration=calibration)

    check = quantize_onnx(source, tmp_path / "int8.onnx", spec, [inputs(32), inputs(8, seed=1)])

    assert check.layers == 2


def test_the_largest_range_of_all_batches_counts_and_not_that_of_the_last(tmp_path: Path):
    source = two_layers(tmp_path / "m.onnx")
    ends = []
    for name, scales in (("rising", (1, 10)), ("falling", (10, 1)), ("small", (1, 1))):
        batches = [inputs(32, seed=seed, scale=scale) for seed, scale in zip((0, 0), scales, strict=True)]
        quantize_onnx(source, tmp_path / f"{name}.onnx", Int8Static(samples=64), batches)
        ends.append(activation_scales(tmp_path / f"{name}.onnx"))

    rising, falling, small = ends
    assert rising == falling
    assert max(rising) == pytest.approx(10 * max(small), rel=1e-3)


def peak_bytes(source: Path, target: Path, calibration: str, batches: int) -> int:
    """The most that numpy held while `batches` batches were calibrated with."""
    spec = Int8Static(samples=64, calibration=calibration)
    tracemalloc.start()
    try:
        quantize_onnx(source, target, spec, (inputs(8192, seed=seed) for seed in range(batches)))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
def test_memory_does_not_grow_with_the_samples(calibration: str, tmp_path: Path):
    source = two_layers(tmp_path / "m.onnx")
    peak_bytes(source, tmp_path / "int8.onnx", calibration, 1)

    few, many = (peak_bytes(source, tmp_path / "int8.onnx", calibration, count) for count in (2, 10))

    assert many < 1.5 * few


def test_says_that_there_are_no_samples(tmp_path: Path):
    with pytest.raises(QuantizationFailed, match="no samples to calibrate with"):
        quantize_onnx(two_layers(tmp_path / "m.onnx"), tmp_path / "int8.onnx", Int8Static(), [])


def test_says_which_weight_holds_nan(tmp_path: Path):
    broken = SQUARE.copy()
    broken[0, 0] = np.nan
    path = graph(
        tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"], name="l")], width=8, w=broken
    )

    with pytest.raises(QuantizationFailed, match="w holds NaN"):
        quantize_onnx(path, tmp_path / "int8.onnx", Int8Static(samples=8), [inputs(8)])
