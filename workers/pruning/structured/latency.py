"""What a removal leaves of the latency, measured: a copy is cut, exported, and takes turns with the dense."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from schemas.job_spec import JobSpec
from workers.benchmark.compare import compare
from workers.export import export_onnx
from workers.models.loaded import Batch, LoadedModel
from workers.pruning.structured.graph import DependencyGraph, Removal
from workers.pruning.structured.surgery import remove

ROUNDS = 7
ROUND_SECONDS = 0.05


def latency_after(
    dense: LoadedModel,
    model: LoadedModel,
    graph: DependencyGraph,
    example: Batch,
    spec: JobSpec,
    threads: int,
) -> Callable[[Removal], float]:
    """A function from a removal to latency over dense latency at the first of the spec's batch sizes.

    Each call exports and measures, which takes seconds, and no two calls give quite the same. The dense model
    is exported at the first; its file lives as long as the function.
    """
    batch = spec.benchmark.batch_sizes[0]
    short = spec.benchmark.model_copy(
        update={"batch_sizes": (batch,), "rounds": ROUNDS, "round_seconds": ROUND_SECONDS}
    )

    def feeds(size: int) -> dict[str, np.ndarray]:
        return {name: _repeated(value.cpu().numpy(), size) for name, value in example.items()}

    kept = TemporaryDirectory(prefix="secateur-")
    before: list[Path] = []

    def dense_file() -> Path:
        if not before:
            before.extend(export_onnx(dense, Path(kept.name) / "dense.onnx", example).files)
        return before[0]

    def measure(removal: Removal) -> float:
        probe = replace(model, module=copy.deepcopy(model.module))
        if removal:
            remove(probe.module, graph, removal)
        with TemporaryDirectory(prefix="secateur-") as folder:
            after = export_onnx(probe, Path(folder) / "pruned.onnx", example)
            result = compare(
                dense_file(), after.files[0], feeds, short, threads=threads, on_round=lambda *_: None
            )
        return 1 / result.comparisons[0].speedup

    return measure


def _repeated(values: np.ndarray, size: int) -> np.ndarray:
    return np.resize(values, (size, *values.shape[1:]))
