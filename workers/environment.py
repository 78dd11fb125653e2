"""Where the figures of a report were taken."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from schemas.report import Environment
from workers.cpu import cpu_name

_PACKAGES = ("secateur", "torch", "torchvision", "transformers", "onnx", "onnxruntime", "numpy")


def environment(device: torch.device, threads: int) -> Environment:
    """Versions and hardware of this process; `device` is the one that the job ran on."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    if device.type == "cuda":
        versions["cuda"] = str(torch.version.cuda)
    return Environment(
        versions=versions,
        device=device_name(device),
        cpu=cpu_name(),
        cores=usable_cores(),
        threads=threads,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        platform=platform.platform(),
    )


def device_name(device: torch.device) -> str:
    """The name of the GPU, or of the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def usable_cores() -> int:
    """Cores that this process may run on, which a container or taskset may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
