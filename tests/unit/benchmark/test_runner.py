"""The interleaved measurement itself; no test asserts a speed of this machine."""

import gc
from pathlib import Path

import numpy as np
import pytest

from schemas.benchmark import BenchmarkSpec, Verdict
from tests.unit.benchmark.models import feeds_of, write_matmuls
from workers.benchmark.backends.onnx_runtime import OnnxRuntime, OnnxRuntimeSession
from workers.benchmark.runner import FEWEST_WARM, Arm, Times, measure

SHORT = BenchmarkSpec(batch_sizes=(1, 4), rounds=5, round_seconds=0.002, warmup_seconds=0.0)


class CountingSession:
    """Answers at once and counts."""

    def __init__(self) -> None:
        self.runs = 0

    def infer(self, feeds):
        self.runs += 1


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_matmuls(tmp_path_factory.mktemp("onnx") / "dense.onnx", depth=3)


def test_measures_each_batch_size_in_every_round(dense):
    rounds = []

    comparisons = measure(
        OnnxRuntime(),
        dense,
        dense,
        {size: feeds_of(size) for size in SHORT.batch_sizes},
        SHORT,
        threads=1,
        on_round=lambda: rounds.append(gc.isenabled()),
    )

    assert [one.batch_size for one in comparisons] == [1, 4]
    assert rounds == [False] * 5
    assert gc.isenabled()
    for one in comparisons:
        assert one.dense.samples >= 5
        assert 0 < one.dense.p50_ms <= one.dense.p99_ms
        assert one.dense.p90_ms <= one.dense.p99_ms
        assert one.dense.cpu_p50_ms > 0
        assert one.speedup_low <= one.speedup_high
        assert one.speedup == pytest.approx(one.dense.p50_ms / one.pruned.p50_ms)
        assert one.verdict in Verdict
        assert one.sentence.startswith(f"Batch {one.batch_size}: ")


def test_model_with_a_fiftieth_of_the_work_takes_less_time(tmp_path):
    deep = write_matmuls(tmp_path / "deep.onnx", depth=100)
    flat = write_matmuls(tmp_path / "flat.onnx", depth=2)

    (comparison,) = measure(
        OnnxRuntime(), deep, flat, {16: feeds_of(16)}, SHORT, threads=1, on_round=lambda: None
    )

    assert comparison.speedup > 1.5


def test_session_is_warm_before_its_times_count():
    session, arm = CountingSession(), Arm(Path("unused"), {1: Times()})
    spec = SHORT.model_copy(update={"round_seconds": 1e-9})

    arm.run(session, {}, 1, spec)

    assert session.runs == FEWEST_WARM + 1
    assert len(arm.times[1].wall[0]) == 1


def test_latency_is_the_median_of_the_medians_of_the_rounds():
    times = Times(wall=[np.array([1.0, 1.0, 9.0]), np.array([2.0]), np.array([3.0])], cpu=[0.1, 0.2, 0.9])

    latency = times.latency()

    assert latency.p50_ms == 2000
    assert latency.cpu_p50_ms == 200
    assert latency.samples == 5


def test_session_keeps_to_its_threads_and_does_not_spin(dense):
    opened = OnnxRuntime().open(dense, threads=2)
    assert isinstance(opened, OnnxRuntimeSession)
    options = opened.session.get_session_options()

    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
