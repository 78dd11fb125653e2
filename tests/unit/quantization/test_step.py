"""The step of a job: metric, files, stages, refusals."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from schemas.quantize import Cluster, Int8Dynamic, Int8Static
from schemas.refs import DataRef
from schemas.task import Task
from tests import tiny
from tests.unit.quantization.files import graph
from workers.data.bundle import Bundle
from workers.data.load import load_bundle
from workers.errors import PreflightError, Stopped
from workers.evaluate import metric_of
from workers.export import export_onnx
from workers.figures import gzip_bytes
from workers.models.load import load_model
from workers.models.loaded import LoadedModel
from workers.models.save import save_model
from workers.pruning.layers import prunable_layers
from workers.quantization.int8 import QuantizationFailed
from workers.quantization.score import judge_onnx
from workers.quantization.step import (
    CLUSTERED_FILE,
    INT8_FILE,
    cluster,
    pattern_note,
    quantize,
    refuse_unquantizable,
    stages,
)

Made = tuple[LoadedModel, Bundle, Path]


def ignore(*_: float) -> None:
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    model = load_model(tiny.resnet(folder / "model"), Task.image_classification)
    data = DataRef(uri="s3://bucket/data", task=Task.image_classification)
    bundle = load_bundle(tiny.image_npz(folder / "data", train=100, validation=70), data, model, seed=0)
    example = bundle.transform(bundle.validation.take(torch.arange(2)).inputs)
    return model, bundle, export_onnx(model, folder / "model.onnx", example).files[0]


def scored(path: Path, model: LoadedModel, bundle: Bundle) -> float:
    return judge_onnx(path, model, bundle, batch_size=32, threads=1, on_batch=ignore).value


def test_the_metric_of_the_float_file_is_that_of_the_model(made: Made):
    model, bundle, source = made

    assert scored(source, model, bundle) == metric_of(model, bundle, batch_size=32, on_batch=ignore)


def test_the_metric_can_be_stopped_between_batches(made: Made):
    model, bundle, source = made

    def stop(done: int, of: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        judge_onnx(source, model, bundle, batch_size=32, threads=1, on_batch=stop)


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
def test_samples_that_do_not_fill_the_last_batch_are_calibrated_with(
    calibration: str, made: Made, tmp_path: Path
):
    model, bundle, source = made
    spec = Int8Static(samples=256, calibration=calibration)  # of 100 that there are: 32, 32, 32, 4

    found = quantize(spec, source, model, bundle, tmp_path, seed=0, threads=1, pattern=None, on_share=ignore)

    assert found.file == tmp_path / INT8_FILE
    assert found.metric == scored(found.file, model, bundle)


def pruned_to_2_4(dense: Path, path: Path) -> Path:
    """Every second input of the layers that have four or more is zero."""
    model = onnx.load(dense)
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight).copy()
        if values.ndim >= 2 and values.shape[1] % 4 == 0:
            values[:, ::2] = 0
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    return path


def unrunnable(path: Path) -> Path:
    """Quantizes, and then asks for another input than the data has."""
    weight = np.ones((4, 4), np.float32)
    return graph(path, [helper.make_node("MatMul", ["x", "w"], ["y"], name="l")], width=4, w=weight)


def test_a_file_that_does_not_run_fails_by_its_own_name_and_is_not_left(made: Made, tmp_path: Path):
    model, bundle, _ = made
    source = unrunnable(tmp_path / "m.onnx")

    with pytest.raises(QuantizationFailed, match="does not run"):
        quantize(
            Int8Dynamic(),
            source,
            model,
            bundle,
            tmp_path,
            seed=0,
            threads=1,
            pattern=None,
            on_share=ignore,
        )

    assert not (tmp_path / INT8_FILE).exists()


def test_a_model_whose_int8_file_does_not_run_is_refused_before_the_work(made: Made, tmp_path: Path):
    _, bundle, source = made

    refuse_unquantizable(Int8Static(), source, bundle, seed=0)
    refuse_unquantizable(Cluster(), tmp_path / "none.onnx", bundle, seed=0)
    with pytest.raises(PreflightError, match=r"quantize\.kind to 'none'"):
        refuse_unquantizable(Int8Dynamic(), unrunnable(tmp_path / "m.onnx"), bundle, seed=0)


def test_stages_have_the_sizes_of_their_files(made: Made, tmp_path: Path):
    model, bundle, source = made
    found = quantize(
        Int8Static(samples=32),
        source,
        model,
        bundle,
        tmp_path,
        seed=0,
        threads=1,
        pattern=None,
        on_share=ignore,
    )

    rows = stages(found, (source, 0.5), (source, 0.4), None, None)

    assert [(row.name, row.metric) for row in rows[:2]] == [("dense", 0.5), ("pruned", 0.4)]
    assert rows[2].bytes == found.file.stat().st_size < rows[0].bytes
    assert rows[2].compressed_bytes == gzip_bytes(found.file)
    assert rows[2].note == found.note


def test_the_note_says_whether_the_pattern_holds(made: Made, tmp_path: Path):
    model, bundle, dense = made
    source = pruned_to_2_4(dense, tmp_path / "pruned.onnx")
    found = quantize(
        Int8Static(samples=32),
        source,
        model,
        bundle,
        tmp_path,
        seed=0,
        threads=1,
        pattern=None,
        on_share=ignore,
    )

    assert pattern_note(source, found.file, 2, 4) == "2:4 holds in all 6 weight tensors that held it before."
    assert "2:4 is broken in 6 of 6" in pattern_note(source, dense, 2, 4)


def test_a_clustered_file_compresses_and_the_model_stays(made: Made, tmp_path: Path):
    model, bundle, _ = made
    layers = prunable_layers(model.module)
    before = [layer.weight.detach().clone() for layer in layers]
    save_model(model, tmp_path / "plain")

    found = cluster(Cluster(k=16), model, layers, bundle, tmp_path, on_share=ignore)

    assert found.file == tmp_path / CLUSTERED_FILE
    assert gzip_bytes(found.file) < 0.5 * gzip_bytes(tmp_path / "plain" / "model.safetensors")
    assert all(torch.equal(layer.weight, old) for layer, old in zip(layers, before, strict=True))
