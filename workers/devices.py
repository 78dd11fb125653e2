"""Which devices this machine has, asked of NVML so that the Celery process never imports torch."""

import os
import platform
from dataclasses import dataclass

import pynvml

from schemas.wire import SERVED_BY, DeviceClass
from workers import host_memory

AMPERE_MAJOR = 8
"""Compute capability 8.0 is the first with sparse tensor cores."""


@dataclass(frozen=True)
class Device:
    """One slot's device."""

    kind: DeviceClass
    name: str
    env: dict[str, str]
    memory_bytes: int | None = None
    """Of the GPU, or of the host; None: the system does not tell."""

    @property
    def serves(self) -> tuple[DeviceClass, ...]:
        """The waiting jobs that it may take, the scarcest class first."""
        return SERVED_BY[self.kind]

    @property
    def torch_name(self) -> str:
        """`cpu` or `cuda`: a child sees its own GPU only."""
        return "cpu" if self.kind is DeviceClass.cpu else "cuda"


def detect() -> list[Device]:
    """The GPUs that NVML shows, or the CPU as the only device."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        name = platform.processor() or platform.machine()
        return [Device(DeviceClass.cpu, name, {"CUDA_VISIBLE_DEVICES": ""}, host_memory.total_bytes())]
    try:
        return [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> Device:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, _ = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    kind = DeviceClass.ampere if major >= AMPERE_MAJOR else DeviceClass.cuda
    uuid = pynvml.nvmlDeviceGetUUID(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    return Device(kind, name, {"CUDA_VISIBLE_DEVICES": uuid}, _gpu_memory(handle))


def _gpu_memory(handle: object) -> int | None:
    """Bytes; None for a GPU that shares the host's memory, of which NVML does not tell."""
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError:
        return None


def slots(devices: list[Device], wanted: int) -> list[Device]:
    """One slot a device; a CPU may be cut into `wanted` slots."""
    if devices and devices[0].kind is DeviceClass.cpu:
        return devices * max(1, wanted)
    return devices[: wanted or len(devices)]


def most_memory(devices: list[Device]) -> int | None:
    """Bytes that a job can have at most; None where a device does not state its own."""
    stated = [one.memory_bytes for one in devices if one.memory_bytes is not None]
    return max(stated) if stated and len(stated) == len(devices) else None


def threads_for(slot_count: int, wanted: int) -> int:
    """CPU threads of one job: `wanted`, or its share of the cores."""
    return wanted or max(1, len(os.sched_getaffinity(0)) // slot_count)
