"""Whether a job's weights have room on its device, asked before they are loaded."""

from pathlib import Path

import torch

from schemas.job_spec import JobSpec
from schemas.memory import fits, in_gb, keeps_dtype, memory_needed, remedy
from service.settings import Settings
from workers import host_memory
from workers.errors import ModelError, OutOfMemory
from workers.models.weights import stored_header


def require_room(spec: JobSpec, folder: Path, device: torch.device) -> None:
    """OutOfMemory, with both figures, where the copies of the weights alone exceed what is free on `device`.

    What cannot be told, such as the size of weights that are not readable, is left to those who load them.
    """
    if not Settings().check_memory:
        return
    needed, free = needed_bytes(spec, folder), free_bytes(device)
    if needed is None or free is None or fits(needed, free):
        return
    raise OutOfMemory(
        f"the model does not fit the worker's memory: the job takes at least {in_gb(needed)} on "
        f"{device.type} (its copies of the weights and what training adds, without activations), and "
        f"{in_gb(free)} are free there: {remedy(spec)}"
    )


def needed_bytes(spec: JobSpec, folder: Path) -> int | None:
    """What the job takes at least, by the heads of the folder's files; None where they do not tell."""
    if any(folder.glob("*.safetensors")):
        try:
            stored = stored_header(folder)
        except ModelError:
            return None
        return memory_needed(spec, stored.computed_bytes(keep_half=keeps_dtype(spec)))
    if any(folder.glob("*.onnx")):
        return _stored(folder, "*.onnx*")  # constants of its graph are shared by all copies
    if any(folder.glob("*.pt2")):
        return memory_needed(spec, _stored(folder, "*.pt2"))
    return None


def free_bytes(device: torch.device) -> int | None:
    """What is free on the device; None where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    return host_memory.free_bytes()


def _stored(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))
