"""A report with the figures of a small ResNet on Fashion-MNIST, whole and as variants."""

from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.artifact import Artifact
from schemas.benchmark import BenchmarkResult, Comparison, Latency, Verdict
from schemas.job import Step, StepState
from schemas.job_spec import EXAMPLE, JobSpec
from schemas.report import Environment, LayerFigures, ModelFigures, OnnxCheck, Report
from schemas.round import Round
from workers.benchmark.sentence import sentence, zeros_note
from workers.benchmark.stats import Interval
from workers.report.verdict import verdict_sentence

BEGAN = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
FLOOR = 0.9052


def sample_rounds(*, last_held: bool = True) -> list[Round]:
    figures = [
        (0.390, 0.9148, 0.9107, 0.1893),
        (0.627, 0.9141, 0.8903, 0.1921),
        (0.749, 0.9128, 0.8614, 0.2040),
        (0.794, 0.9119, 0.8970, 0.2066),
        (0.800, 0.9116 if last_held else 0.9031, 0.9102, 0.2051),
    ]
    return [
        Round(
            number=number,
            attempt=1,
            sparsity=sparsity,
            metric=metric,
            metric_before_fine_tune=before,
            loss=loss,
            epochs=1,
            held=metric >= FLOOR,
            seconds=14.2 + number / 10,
            committed_at=BEGAN + timedelta(seconds=30 + 15 * number),
        )
        for number, (sparsity, metric, before, loss) in enumerate(figures, start=1)
    ]


def sample_comparison(
    batch_size: int, speedup: float, low: float, high: float, noise: float, verdict: Verdict
) -> Comparison:
    dense_ms = 0.2 * batch_size**0.7
    pruned_ms = dense_ms / speedup
    return Comparison(
        batch_size=batch_size,
        dense=_latency(dense_ms),
        pruned=_latency(pruned_ms),
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
        noise=noise,
        verdict=verdict,
        sentence=sentence(batch_size, verdict, Interval(speedup, low, high), noise),
    )


def _latency(p50_ms: float) -> Latency:
    return Latency(
        p50_ms=p50_ms, p90_ms=1.08 * p50_ms, p99_ms=1.4 * p50_ms, cpu_p50_ms=0.97 * p50_ms, samples=9214
    )


def sample_benchmark(*comparisons: Comparison) -> BenchmarkResult:
    measured = comparisons or (
        sample_comparison(1, 1.003, 0.985, 1.021, 0.017, Verdict.no_difference),
        sample_comparison(32, 0.999, 0.996, 1.003, 0.005, Verdict.no_difference),
    )
    return BenchmarkResult(
        backend="onnxruntime",
        device="Intel(R) Xeon(R) Processor",
        threads=2,
        precision="fp32",
        rounds=20,
        comparisons=list(measured),
        note=zeros_note("ONNX Runtime"),
    )


def _layer(name: str, shape: list[int], sparsity: float, reason: str | None = None) -> LayerFigures:
    weights = 1
    for size in shape:
        weights *= size
    zeros = round(weights * sparsity)
    return LayerFigures(
        name=name,
        kind="Conv2d" if len(shape) == 4 else "Linear",
        shape=shape,
        weights=weights,
        zeros=zeros,
        sparsity=zeros / weights,
        pruned=reason is None,
        reason=reason,
    )


def sample_layers() -> list[LayerFigures]:
    stages = [
        _layer(
            f"resnet.encoder.stages.{stage}.layers.{block}.layer.{conv}.convolution",
            [32 << stage, (32 << stage) >> (1 if stage and not block and not conv else 0), 3, 3],
            0.42 + 0.16 * stage + 0.03 * block + 0.02 * conv,
        )
        for stage in range(3)
        for block in range(2)
        for conv in range(2)
    ]
    first = _layer("resnet.embedder.embedder.convolution", [32, 1, 7, 7], 0.28)
    return [first, *stages, _layer("classifier.1", [10, 128], 0.0, "excluded by 'classifier.*'")]


def sample_steps() -> list[Step]:
    names = ["pull", "preflight", "baseline"]
    names += [f"{verb}#{number}" for number in range(1, 6) for verb in ("prune", "finetune", "evaluate")]
    names += ["export", "benchmark", "publish"]
    lengths = {
        "pull": 0.8,
        "finetune": 12.9,
        "evaluate": 1.4,
        "prune": 0.05,
        "benchmark": 17.6,
        "export": 4.1,
    }
    return [
        Step(
            name=name,
            state=StepState.finished,
            started_at=BEGAN,
            seconds=(taken := lengths.get(name.split("#")[0], 2.2)),
            device_seconds=None if name in ("pull", "publish") else taken,
        )
        for name in names
    ]


def sample_report(**changes: Any) -> Report:
    """The sample, with fields replaced by `changes`."""
    spec = JobSpec.model_validate({**EXAMPLE, "method": {"exclude": ["classifier.*"]}})
    fields: dict[str, Any] = {
        "job": "job_01jdf3q8v7e0x9m4",
        "created_at": BEGAN + timedelta(minutes=2),
        "goal_reached": True,
        "metric_name": "accuracy",
        "floor": FLOOR,
        "seed": 0,
        "architecture": "transformers/ResNetForImageClassification",
        "train_samples": 10_000,
        "validation_samples": 2_000,
        "dense": ModelFigures(
            metric=0.9152,
            parameters=692_650,
            nonzeros=692_650,
            bytes=2_789_464,
            compressed_bytes=2_581_117,
            macs=13_912_064,
            effective_macs=13_912_064,
        ),
        "pruned": ModelFigures(
            metric=0.9116,
            parameters=692_650,
            nonzeros=142_084,
            bytes=2_789_464,
            compressed_bytes=742_902,
            macs=13_912_064,
            effective_macs=4_871_330,
        ),
        "sparsity": 0.8,
        "removed": 0.8,
        "rounds": sample_rounds(),
        "layers": sample_layers(),
        "onnx": OnnxCheck(
            opset=20,
            bytes=2_802_143,
            max_abs_diff=4.8e-6,
            max_abs_output=14.2,
            tolerance=1.42e-3,
            matches=True,
        ),
        "benchmark": sample_benchmark(),
        "steps": sample_steps(),
        "seconds": 102.8,
        "device_seconds": 99.8,
        "environment": _environment(),
        "artifacts": _artifacts(),
        "notes": ["Sparsity counts the weights of the pruned layers; biases and normalization stay dense."],
        "spec": spec,
        **changes,
    }
    fields.setdefault("verdict", _verdict(fields))
    return Report(**fields)


def _verdict(fields: dict[str, Any]) -> str:
    return verdict_sentence(
        goal=fields["spec"].goal.removed,
        quantity=fields["spec"].quantity,
        reached=fields["goal_reached"],
        removed=fields["removed"],
        metric_name=fields["metric_name"],
        dense_metric=fields["dense"].metric,
        pruned_metric=fields["pruned"].metric,
        floor=fields["floor"],
        rounds=fields["rounds"],
        benchmark=fields["benchmark"],
    )


def _environment() -> Environment:
    return Environment(
        versions={
            "python": "3.11.2",
            "secateur": "0.1.0",
            "torch": "2.14.1",
            "torchvision": "0.29.1",
            "transformers": "5.23.0",
            "onnxruntime": "1.32.0",
            "numpy": "2.4.6",
        },
        device="Intel(R) Xeon(R) Processor",
        cpu="Intel(R) Xeon(R) Processor",
        cores=2,
        threads=2,
        memory_bytes=8_201_949_184,
        platform="Linux-6.1.0-x86_64-with-glibc2.36",
    )


def _artifacts() -> list[Artifact]:
    files = [
        ("model.safetensors", 2_789_464, "application/octet-stream"),
        ("config.json", 1_204, "application/json"),
        ("model.onnx", 2_802_143, "application/octet-stream"),
    ]
    return [
        Artifact(name=name, bytes=size, sha256=f"{number:x}" * 64, media_type=kind)
        for number, (name, size, kind) in enumerate(files, start=10)
    ]
