"""The last step: the report, its page, and all files to S3 under this attempt's own name."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from schemas.artifact import Artifact
from schemas.benchmark import BenchmarkResult
from schemas.goal import Goal
from schemas.job import Step
from schemas.job_spec import JobSpec
from schemas.refs import AGREEMENT
from schemas.report import Curve, GroupFigures, LayerFigures, ModelFigures, Report, Stage
from schemas.round import share_removed
from service.store.blobs import Blobs, media_type
from workers.environment import environment
from workers.export import OnnxExport
from workers.link import Meter
from workers.messages import DoneMessage, JobOrder
from workers.patience import patiently
from workers.report.page import render_html
from workers.report.verdict import verdict_sentence
from workers.story import Outcome
from workers.tasks.language import perplexity

EXACT, CLOSE = 1e-4, 0.02
"""Distance from the goal at which it counts as reached. Zeros are exact; widths are whole, latency is never
the same twice, and training after the last cut changes how well a file compresses."""


@dataclass(frozen=True)
class Findings:
    """What was measured of the dense and the pruned model."""

    dense: ModelFigures
    pruned: ModelFigures
    layers: list[LayerFigures]
    onnx: OnnxExport | None
    benchmark: BenchmarkResult | None
    device: torch.device
    architecture: str
    metric_name: str
    """Of the task, or of the plug-in in its place."""
    samples: tuple[int, int]
    """Of the train and of the validation split."""
    groups: list[GroupFigures]
    stages: list[Stage]
    curves: list[Curve]
    decisions: list[str]
    notes: list[str]
    """Of the pruner, the files and the quantizer."""


def publish(
    order: JobOrder,
    outcome: Outcome,
    findings: Findings,
    steps: Sequence[Step],
    blobs: Blobs,
    folder: Path,
    meter: Meter,
) -> DoneMessage:
    """Upload what lies in `folder`, then the report. The result is real once the job's record names it."""
    prefix = f"{order.prefix}artifacts/{order.token.replace(':', '-')}/"
    files = sorted(path for path in folder.iterdir() if path.is_file())
    artifacts = []
    for number, path in enumerate(files, 1):
        artifacts.append(_upload(path, prefix, blobs, meter))
        meter.advance(number / (len(files) + 2))
    report = _report(order, outcome, findings, steps, artifacts)
    for name, text in (
        ("report.json", report.model_dump_json(indent=2)),
        ("report.html", render_html(report)),
    ):
        path = folder / name
        path.write_text(text, encoding="utf-8")
        artifacts.append(_upload(path, prefix, blobs, meter))
    manifest = {"prefix": prefix, "artifacts": [one.model_dump(mode="json") for one in artifacts]}
    return DoneMessage(reason=report.verdict, summary=_summary(report), manifest=manifest)


def _upload(path: Path, prefix: str, blobs: Blobs, meter: Meter) -> Artifact:
    sent = patiently(lambda: blobs.upload_file(path, prefix + path.name), lambda: meter.advance(0.5))
    return Artifact(name=path.name, bytes=sent.bytes, sha256=sent.sha256, media_type=media_type(path.name))


def is_reached(goal: Goal, removed: float) -> bool:
    """Whether the share `removed` of the goal's quantity is what was asked for, or close to it."""
    return removed >= goal.removed - (EXACT if goal.name == "sparsity" else CLOSE)


def _report(
    order: JobOrder, outcome: Outcome, findings: Findings, steps: Sequence[Step], artifacts: list[Artifact]
) -> Report:
    best, spec = outcome.best(), order.spec
    removed = share_removed(best)
    metric_name = AGREEMENT if spec.data.synthetic else findings.metric_name
    goal = None if spec.goal is None else spec.goal.removed
    reached = spec.goal is None or is_reached(spec.goal, removed)
    verdict = verdict_sentence(
        goal=goal,
        quantity=spec.quantity,
        reached=reached,
        removed=removed,
        metric_name=metric_name,
        dense_metric=outcome.dense_metric,
        pruned_metric=best.metric,
        floor=outcome.floor,
        rounds=outcome.rounds,
        benchmark=findings.benchmark,
        stages=findings.stages,
    )
    return Report(
        job=order.id,
        created_at=datetime.now(UTC),
        verdict=verdict,
        goal_reached=reached,
        metric_name=metric_name,
        floor=outcome.floor,
        seed=order.spec.seed,
        architecture=findings.architecture,
        train_samples=findings.samples[0],
        validation_samples=findings.samples[1],
        dense=findings.dense,
        pruned=findings.pruned,
        quantity=spec.quantity,
        removed=removed,
        sparsity=best.sparsity,
        rounds=outcome.rounds,
        layers=findings.layers,
        groups=findings.groups,
        stages=findings.stages,
        curves=findings.curves,
        decisions=findings.decisions,
        onnx=findings.onnx.check if findings.onnx else None,
        benchmark=findings.benchmark,
        steps=list(steps),
        seconds=round(sum(step.seconds or 0.0 for step in steps), 3),
        device_seconds=round(sum(step.device_seconds or 0.0 for step in steps), 3),
        environment=environment(findings.device, order.threads),
        artifacts=artifacts,
        notes=_notes(order.spec, findings),
        spec=order.spec,
    )


def _notes(spec: JobSpec, findings: Findings) -> list[str]:
    notes = [
        "MACs count every multiply-accumulate; 'with a non-zero weight' is what hardware for sparse weights "
        "could skip to. It is a count, not a speed."
    ]
    if spec.data.synthetic:
        notes.insert(0, f"No labelled data: the metric is {AGREEMENT}; it says nothing about accuracy.")
    elif spec.data.task.is_language_model and spec.data.plugin is None:
        dense, pruned = (perplexity(one.metric) for one in (findings.dense, findings.pruned))
        notes.append(f"Perplexity, which is 1 / token probability: dense {dense:.2f}, pruned {pruned:.2f}.")
    notes += findings.notes
    if findings.onnx is not None and findings.onnx.note:
        notes.append(findings.onnx.note)
    return notes


def _summary(report: Report) -> dict[str, object]:
    """The headline figures, for lists of jobs."""
    comparisons = report.benchmark.comparisons if report.benchmark else []
    summary = {
        "goal_reached": report.goal_reached,
        "metric_name": report.metric_name,
        "dense_metric": report.dense.metric,
        "metric": report.pruned.metric,
        "sparsity": report.sparsity,
        "quantity": report.quantity,
        "removed": report.removed,
        "dense_parameters": report.dense.parameters,
        "parameters": report.pruned.parameters,
        "nonzeros": report.pruned.nonzeros,
        "dense_compressed_bytes": report.dense.compressed_bytes,
        "compressed_bytes": report.pruned.compressed_bytes,
        "verdicts": {str(one.batch_size): one.verdict.value for one in comparisons},
        "device_seconds": report.device_seconds,
    }
    return dict(json.loads(json.dumps(summary)))
