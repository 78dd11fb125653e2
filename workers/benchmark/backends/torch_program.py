"""PyTorch itself: a program of torch.export, as it is, compiled, or with 2:4 weights in sparse kernels."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.sparse import to_sparse_semi_structured

from workers.benchmark.backends.backend import Feeds, Session
from workers.cpu import cpu_name

Mode = Literal["eager", "compile", "sparse"]
AMPERE = (8, 0)


class TorchProgram:
    """`eager`; `compile`: torch.compile; `sparse`: 2:4 weights of linear layers in sparse kernels."""

    suffix: ClassVar[str] = ".pt2"

    def __init__(self, mode: Mode = "eager", device: str = "cpu") -> None:
        self.mode, self._device = mode, device

    def why_not(self) -> str | None:
        """Sparse kernels are for CUDA, compute capability 8.0 or newer."""
        if self._device == "cuda" and not torch.cuda.is_available():
            return "PyTorch sees no CUDA device"
        if self.mode != "sparse":
            return None
        if self._device != "cuda":
            return "semi-structured kernels are for CUDA only"
        capability = torch.cuda.get_device_capability()
        if capability < AMPERE:
            have = ".".join(map(str, capability))
            return f"compute capability {have}: sparse tensor cores need 8.0 or newer"
        return None

    def device(self) -> str:
        """The processor's name, or the GPU's."""
        return torch.cuda.get_device_name() if self._device == "cuda" else cpu_name()

    def open(self, model: Path, *, threads: int) -> Session:
        """Load the program; the file is ours, written by this job."""
        torch.set_num_threads(threads)
        module = torch.export.load(model).module().to(self._device)
        if self.mode == "sparse":
            sparsify(module)
        run = torch.compile(module) if self.mode == "compile" else module
        return TorchSession(run, self._device)


class TorchSession:
    """One module; its inputs go in the order of the feeds, which is that of the export."""

    def __init__(self, run: Callable[..., object], device: str) -> None:
        self._run, self._device = run, device

    def infer(self, feeds: Feeds) -> None:
        """One whole batch; on a GPU it waits for it."""
        with torch.inference_mode():
            self._run(*(torch.from_numpy(value).to(self._device) for value in feeds.values()))
        if self._device == "cuda":
            torch.cuda.synchronize()


def sparsify(module: nn.Module) -> list[str]:
    """Weights [O, I] of two axes that hold 2:4, in half precision, as sparse tensors; answers their names.

    Raises RuntimeError where the shape is not one that the kernels take.
    """
    changed = []
    for name, weight in list(module.named_parameters()):
        if weight.ndim != 2 or weight.shape[1] % 4 or weight.dtype == torch.float32:
            continue
        if bool(((weight.detach().reshape(len(weight), -1, 4) != 0).sum(dim=2) <= 2).all()):
            owner = module.get_submodule(name.rpartition(".")[0])
            sparse = nn.Parameter(to_sparse_semi_structured(weight.detach()), requires_grad=False)
            setattr(owner, name.rpartition(".")[2], sparse)
            changed.append(name)
    return changed
