"""Command lines of trtexec by version, and the text that it prints."""

from pathlib import Path

import numpy as np
import pytest

from workers.benchmark.tensorrt.trtexec import (
    build_command,
    percentile,
    read_profile,
    read_summary,
    read_times,
    run_command,
)

SUMMARY = """\
[08/11/2025-10:12:14] [I] === Performance summary ===
[08/11/2025-10:12:14] [I] Throughput: 2034.55 qps
[08/11/2025-10:12:14] [I] Latency: min = 0.489 ms, max = 0.61 ms, mean = 0.4915 ms, median = 0.491 ms, percentile(90%) = 0.493 ms, percentile(95%) = 0.494 ms, percentile(99%) = 0.501 ms
[08/11/2025-10:12:14] [I] Enqueue Time: min = 0.0021 ms, max = 0.018 ms, mean = 0.0024 ms, median = 0.0023 ms, percentile(90%) = 0.0026 ms, percentile(95%) = 0.0028 ms, percentile(99%) = 0.0043 ms
[08/11/2025-10:12:14] [I] GPU Compute Time: min = 0.489 ms, max = 0.61 ms, mean = 0.4915 ms, median = 0.491 ms, percentile(90%) = 0.493 ms, percentile(95%) = 0.494 ms, percentile(99%) = 0.501 ms
[08/11/2025-10:12:14] [I] Total Host Walltime: 10.0012 s
"""  # noqa: E501 - as it is printed
REMOVED_IN_11 = ("--fp16", "--bf16", "--int8", "--fp8", "--best", "--stronglyTyped", "--precisionConstraints")


def build(major: int, *, sparse: bool = True, onnx: str = "/tmp/m.onnx") -> list[str]:
    return build_command(
        Path(onnx),
        Path("/tmp/m.plan"),
        major=major,
        sparse=sparse,
        shapes={"x": (32, 3, 224, 224), "mask": (32, 7)},
        timing_cache=Path("/tmp/c"),
        workspace_mib=4096,
    )


def test_networks_of_10_are_strongly_typed_by_a_flag_that_11_does_not_know():
    assert "--stronglyTyped" in build(10)
    assert not [one for one in build(11) for flag in REMOVED_IN_11 if one.startswith(flag)]


def test_sparse_tactics_are_allowed_and_never_forced():
    assert "--sparsity=enable" in build(10, sparse=True)
    assert "--sparsity=disable" in build(11, sparse=False)
    assert not [one for one in build(11) if "force" in one]


def test_an_engine_is_tuned_for_the_shape_that_is_measured():
    at = "x:32x3x224x224,mask:32x7"

    assert {f"--minShapes={at}", f"--optShapes={at}", f"--maxShapes={at}"} <= set(build(11))


def test_a_path_with_spaces_stays_one_argument():
    assert "--onnx=/tmp/my model; rm.onnx" in build(11, onnx="/tmp/my model; rm.onnx")


def test_a_run_leaves_no_default_to_the_version():
    command = run_command(
        Path("e.plan"),
        shapes={"x": (1, 3)},
        warmup_ms=500,
        seconds=10,
        times=Path("t.json"),
        layers=Path("l.json"),
    )

    assert {"--noDataTransfers", "--useCudaGraph", "--useSpinWait", "--duration=10"} <= set(command)


def test_reads_the_summary_that_it_prints():
    found = read_summary(SUMMARY)

    assert found.throughput_qps == 2034.55
    assert found.times.keys() == {"latency", "enqueue", "gpu_compute"}
    assert (found.times["gpu_compute"].median_ms, found.times["gpu_compute"].p99_ms) == (0.491, 0.501)
    assert found.times["enqueue"].min_ms == 0.0021


def test_output_without_a_summary_is_an_error():
    with pytest.raises(ValueError, match="no performance summary"):
        read_summary("[E] Unknown option: --fp16")


def test_reads_the_exported_times():
    text = '[{"startEnqMs": 1, "computeMs": 0.5, "latencyMs": 0.5}, {"startEnqMs": 2, "computeMs": 0.75}]'

    assert read_times(text) == [0.5, 0.75]
    with pytest.raises(ValueError, match="computeMs"):
        read_times('{"computeMs": 1}')


def test_reads_the_exported_profile():
    text = (
        '[{"count": 10}, {"name": "conv + relu", "timeMs": 5, "averageMs": 0.5, "medianMs": 0.4, '
        '"percentage": 80}]'
    )

    assert read_profile(text) == {"conv + relu": 0.5}
    with pytest.raises(ValueError, match="begins with its count"):
        read_profile("[]")


@pytest.mark.parametrize("n", [1, 2, 7, 100])
@pytest.mark.parametrize("percent", [50, 90, 99, 100])
def test_percentiles_are_times_that_were_measured(n: int, percent: float):
    times = np.random.default_rng(n).uniform(size=n).tolist()

    found = percentile(times, percent)

    assert found in times
    assert sum(one <= found for one in times) >= percent / 100 * n - 1e-9
