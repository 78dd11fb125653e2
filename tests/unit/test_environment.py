"""Where the figures of a report were taken."""

import os
import platform
from importlib.metadata import version

import pytest
import torch

from workers.cpu import cpu_name
from workers.environment import device_name, environment, usable_cores

XEON = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 106\nmodel name\t: Intel(R) Xeon(R) Gold 6338\n"


def test_names_versions_and_hardware_of_this_process():
    found = environment(torch.device("cpu"), 2)

    assert found.versions["torch"] == version("torch")
    assert found.versions["secateur"] == version("secateur")
    assert found.versions["python"] == platform.python_version()
    assert {"torchvision", "transformers", "onnxruntime", "numpy"} <= set(found.versions)
    assert "cuda" not in found.versions
    assert found.device == found.cpu != ""
    assert found.threads == 2
    assert found.memory_bytes > 2**26


def test_reads_the_model_name_of_the_cpu(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(XEON)

    assert cpu_name(cpuinfo) == "Intel(R) Xeon(R) Gold 6338"


@pytest.mark.parametrize("text", ["processor\t: 0\nBogoMIPS\t: 50.00\n", "model name\t:\n", ""])
def test_falls_back_to_the_architecture_where_the_kernel_names_no_cpu(tmp_path, text):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)

    assert cpu_name(cpuinfo) in (platform.processor(), platform.machine())
    assert cpu_name(tmp_path / "absent") in (platform.processor(), platform.machine())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no CPU affinity")
def test_counts_only_the_cores_that_it_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})

        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_names_the_gpu_and_its_cuda():
    found = environment(torch.device("cuda"), 2)

    assert found.device == torch.cuda.get_device_name(0) == device_name(torch.device("cuda"))
    assert found.versions["cuda"] == torch.version.cuda
