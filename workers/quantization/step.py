"""The step `quantize` of a job, and what its report says of each stage of the model."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch

from schemas.benchmark import BenchmarkResult
from schemas.quantize import Cluster, Int8Dynamic, Int8Static, Quantize
from schemas.report import Stage
from workers.data.bundle import Bundle
from workers.errors import PreflightError
from workers.evaluate import metric_of
from workers.figures import gzip_bytes
from workers.models.loaded import LoadedModel
from workers.models.save import save_model
from workers.models.weights import SINGLE
from workers.pruning.calibration import drawn
from workers.pruning.layers import Layer
from workers.quantization.calibrate import Feeds
from workers.quantization.cluster import cluster_layers
from workers.quantization.int8 import QuantizationFailed, quantize_onnx
from workers.quantization.score import judge_onnx, try_one
from workers.quantization.zeros import broken_patterns, tensors_with_pattern

INT8_FILE = "model.int8.onnx"
CLUSTERED_FILE = "model.clustered.safetensors"
BATCH = 32
"""Samples that are calibrated with at a time."""


@dataclass(frozen=True)
class Quantized:
    """The file, its metric on the validation split, and what a reader must know of it."""

    file: Path
    metric: float
    note: str


def quantize(
    spec: Int8Dynamic | Int8Static,
    source: Path,
    model: LoadedModel,
    bundle: Bundle,
    folder: Path,
    *,
    seed: int,
    threads: int,
    pattern: tuple[int, int] | None,
    on_share: Callable[[float], None],
) -> Quantized:
    """INT8 of the pruned model's ONNX file, into `folder`, once it was seen to run.

    `pattern`: the N and M that the float file holds, to be checked in the INT8 one. Raises
    QuantizationFailed, and then leaves no file.
    """
    with TemporaryDirectory(prefix="secateur-") as scratch:
        written = Path(scratch) / INT8_FILE
        check = quantize_onnx(source, written, spec, calibration_feeds(spec, bundle, seed=seed))
        on_share(0.5)
        measured = judge_onnx(
            written,
            model,
            bundle,
            batch_size=BATCH * 4,
            threads=threads,
            on_batch=lambda done, of: on_share(0.5 + 0.5 * done / of),
        )
        shutil.move(written, folder / INT8_FILE)
    told = [check.sentence()]
    if pattern is not None:
        told.append(pattern_note(source, folder / INT8_FILE, *pattern))
    return Quantized(folder / INT8_FILE, measured.value, " ".join(told))


def pattern_note(source: Path, int8: Path, n: int, m: int) -> str:
    """For the report: whether the weights of N:M in the float file are so in the INT8 one."""
    before, after = onnx.load(source), onnx.load(int8)
    held, broken = tensors_with_pattern(before, n, m), broken_patterns(before, after, n, m)
    if broken:
        return f"{n}:{m} is broken in {len(broken)} of {len(held)} weight tensors, the first is {broken[0]}."
    return f"{n}:{m} holds in all {len(held)} weight tensors that held it before."


def cluster(
    spec: Cluster,
    model: LoadedModel,
    layers: list[Layer],
    bundle: Bundle,
    folder: Path,
    *,
    on_share: Callable[[float], None],
) -> Quantized:
    """The model with shared weights as a second safetensors file; the model itself stays as it is."""
    before = [layer.weight.detach().clone() for layer in layers]
    cluster_layers(layers, spec.k)
    metric = metric_of(model, bundle, batch_size=256, on_batch=lambda done, of: on_share(done / of))
    with TemporaryDirectory(prefix="secateur-") as scratch:
        save_model(model, Path(scratch))
        shutil.move(Path(scratch) / SINGLE, folder / CLUSTERED_FILE)
    with torch.no_grad():
        for layer, weights in zip(layers, before, strict=True):
            layer.weight.copy_(weights)
    note = f"Each of {len(layers)} layers has at most {spec.k} different weights that are not zero."
    return Quantized(folder / CLUSTERED_FILE, metric, note)


def refuse_unquantizable(spec: Quantize, source: Path, bundle: Bundle, *, seed: int) -> None:
    """Quantize the dense model with a few samples, and run it on one: PreflightError where that fails."""
    if not isinstance(spec, Int8Dynamic | Int8Static):
        return
    few = spec if isinstance(spec, Int8Dynamic) else spec.model_copy(update={"samples": BATCH})
    with TemporaryDirectory(prefix="secateur-") as scratch:
        try:
            written = Path(scratch) / INT8_FILE
            quantize_onnx(source, written, few, calibration_feeds(few, bundle, seed=seed))
            try_one(written, bundle)
        except QuantizationFailed as error:
            raise PreflightError(
                f"ONNX Runtime cannot quantize this model ({error}): set quantize.kind to 'none'"
            ) from error


def calibration_feeds(spec: Int8Dynamic | Int8Static, bundle: Bundle, *, seed: int) -> Iterator[Feeds]:
    """Inputs of calibration samples, batch by batch; none for dynamic quantization."""
    if isinstance(spec, Int8Dynamic):
        return
    split = drawn(bundle.calibration or bundle.train, spec.samples, seed=seed)
    for inputs, _ in bundle.batches(split, BATCH, device=torch.device("cpu")):
        yield {name: value.numpy() for name, value in inputs.items()}


def stages(
    quantized: Quantized,
    dense: tuple[Path, float],
    pruned: tuple[Path, float],
    benchmark: BenchmarkResult | None,
    against_dense: BenchmarkResult | None,
) -> list[Stage]:
    """Dense, pruned, quantized: files with their metric, and the latencies that were measured.

    `benchmark` compares dense and pruned, `against_dense` dense and quantized.
    """
    sentences = [one.sentence for one in against_dense.comparisons] if against_dense else []
    told = [quantized.note, *(f"Against the dense model: {one}" for one in sentences)]
    rows = [
        ("dense", *dense, _latencies(benchmark, "dense"), None),
        ("pruned", *pruned, _latencies(benchmark, "pruned"), None),
        ("quantized", quantized.file, quantized.metric, _latencies(against_dense, "pruned"), " ".join(told)),
    ]
    return [
        Stage(
            name=name,
            metric=metric,
            file=file.name,
            bytes=file.stat().st_size,
            compressed_bytes=gzip_bytes(file),
            latency_ms=latency,
            note=note,
        )
        for name, file, metric, latency, note in rows
    ]


def _latencies(result: BenchmarkResult | None, arm: str) -> dict[str, float]:
    if result is None:
        return {}
    return {str(one.batch_size): getattr(one, arm).p50_ms for one in result.comparisons}
