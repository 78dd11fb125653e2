"""Latency of two ONNX files in turns, by the product's own benchmark, for us and for libraries alike."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from schemas.benchmark import BenchmarkSpec, Comparison
from schemas.task import Task
from tests.tables.assets import local
from tests.tables.places import CACHE, PRUNED
from tests.tables.plan import Case
from tests.tables.results import OURS, Result, Speed
from workers.benchmark.compare import MakeFeeds, compare
from workers.export import export_onnx
from workers.models.load import load_model


def speed_of(one: Comparison, what: str | None = None) -> Speed:
    """A comparison of a report as a table keeps it."""
    return Speed(
        what=what or f"batch {one.batch_size}",
        dense_ms=one.dense.p50_ms,
        pruned_ms=one.pruned.p50_ms,
        speedup=one.speedup,
        low=one.speedup_low,
        high=one.speedup_high,
        verdict=one.verdict.value,
    )


def file_of(case: Case, by: str) -> Path:
    """The pruned model of the case as an ONNX file, kept so that its speed can be measured again."""
    return PRUNED / f"{by}-{case.digest}.onnx"


def again(case: Case, result: Result) -> Result:
    """The same result with its speeds measured anew, on a machine that is quiet now."""
    threads = (os.cpu_count() or 1) // case.slots
    pruned = file_of(case, result.by)
    speeds = measured(case, pruned, threads=threads)
    if case.tokens is not None and result.by == OURS:
        speeds.append(speed_of_texts(case, pruned, tokens=case.tokens, threads=threads))
    return replace(result, speeds=tuple(speeds))


def measured(case: Case, pruned: Path, *, threads: int) -> list[Speed]:
    """The file `pruned` against the case's dense model, at the batch sizes of its spec."""
    spec, tokens = case.job().benchmark, int(case.spec["data"].get("max_length", 0))
    result = compare(
        dense_onnx(case), pruned, _feeds(case, tokens), spec, threads=threads, on_round=lambda *_: None
    )
    return [speed_of(one) for one in result.comparisons]


def speed_of_texts(case: Case, pruned: Path, *, tokens: int, threads: int) -> Speed:
    """The same for one text of `tokens` tokens."""
    spec = BenchmarkSpec(batch_sizes=(1,), rounds=10, round_seconds=0.5)
    result = compare(
        dense_onnx(case), pruned, _feeds(case, tokens), spec, threads=threads, on_round=lambda *_: None
    )
    return speed_of(result.comparisons[0], f"batch 1, {tokens} tokens")


def dense_onnx(case: Case) -> Path:
    """The dense model of the case as an ONNX file, exported on first use."""
    uri, task = case.spec["model"]["uri"], case.job().data.task
    path = CACHE / "onnx" / f"{local(uri).name}.onnx"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        feeds = _feeds(case, int(case.spec["data"].get("max_length", 0)))(2)
        model = load_model(local(uri), task)
        export_onnx(model, path, {name: torch.from_numpy(value) for name, value in feeds.items()})
    return path


def _feeds(case: Case, tokens: int) -> MakeFeeds:
    """Random inputs of the right shape: what a model computes with does not depend on the values."""
    if case.job().data.task is not Task.image_classification:
        return lambda size: {
            "input_ids": np.random.default_rng(0).integers(1000, 20000, (size, tokens)),
            "attention_mask": np.ones((size, tokens), np.int64),
        }
    model = load_model(local(case.spec["model"]["uri"]), Task.image_classification)
    assert model.image_size is not None
    shape = (model.image_channels, *model.image_size)
    return lambda size: {
        "pixel_values": np.random.default_rng(0).standard_normal((size, *shape)).astype(np.float32)
    }
