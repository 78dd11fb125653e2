"""What is tried on each architecture: surgery and what must hold after it, then the export."""

import copy
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

from schemas.allocation import UniformAllocation
from schemas.criteria import Magnitude
from schemas.method import Structured
from tests.sweep import twin
from tests.sweep.case import Case, batch, load
from workers.errors import PreflightError
from workers.export import export_onnx
from workers.figures import macs_of
from workers.models.loaded import LoadedModel
from workers.pruning.structured.graph import DependencyGraph, Removal
from workers.pruning.structured.plan import choose_groups, plan
from workers.pruning.structured.scores import magnitude
from workers.pruning.structured.surgery import remove
from workers.pruning.structured.trace import trace

SHARE = 0.5
TOLERANCE = 1e-5
"""Of the largest output."""
METHOD = Structured(
    criterion=Magnitude(norm=1), allocation=UniformAllocation(keep_first_and_last=False), round_to=1
)

Record = dict[str, Any]


class Failed(Exception):
    """The sweep's own verdict: something ran and is wrong."""


def cut(model: LoadedModel, inputs: dict[str, Tensor]) -> tuple[DependencyGraph, Removal, dict[str, str]]:
    """Trace, score, plan and operate, as a job does."""
    graph = trace(model.module, lambda module: model.call(module, inputs))
    chosen = choose_groups(graph, METHOD)
    removal = plan(chosen.groups, magnitude(model.module, chosen.groups, norm=1), METHOD, SHARE)
    remove(model.module, graph, removal)
    return graph, removal, chosen.reasons


def check(case: Case) -> Record:
    """Cut by half; the pruned model must be smaller, equal its masked twin, and train.

    Raises PreflightError where the engine refuses, Failed where it was wrong.
    """
    model, inputs = load(case), batch(case)
    dense = copy.deepcopy(model.module)
    record: Record = {"parameters": _parameters(model.module), "macs": _macs(model, inputs)}
    expected = _logits(model, inputs)
    _refuse_noise(expected, "the dense model")
    rested = _reset_peak()
    begin = time.process_time()
    graph, removal, reasons = cut(model, inputs)
    record |= {
        "seconds": round(time.process_time() - begin, 2),
        "extra_mib": round((_peak() - rested) / 2**20),
        "reasons": reasons,
        "kinds": {group.kind: None for group in graph.groups},
        "parameters_after": _parameters(model.module),
        "groups": len(graph.groups),
    }
    record["kinds"] = sorted(record["kinds"])
    if record["parameters_after"] >= record["parameters"]:
        raise Failed("nothing became smaller, and nothing was said")
    actual = _logits(model, inputs)
    record["macs_after"] = _macs(model, inputs)
    record |= _equality(dense, model, inputs, graph, removal, actual, expected)
    _train(model, inputs)
    return record


def export(case: Case) -> Record:
    """The pruned model as ONNX, compared by ONNX Runtime."""
    model, inputs = load(case), batch(case)
    cut(model, inputs)
    with tempfile.TemporaryDirectory() as folder:
        result = export_onnx(model, Path(folder) / "model.onnx", inputs)
    return {"onnx_diff": result.check.max_abs_diff, "onnx_bytes": result.check.bytes}


STAGES: dict[str, Callable[[Case], Record]] = {"check": check, "export": export}


def attempt(case: Case, stage: str) -> Record:
    """The record of one stage, with its `outcome`: passed, refused (with the reason) or failed."""
    try:
        return {"outcome": "passed", **STAGES[stage](case)}
    except PreflightError as error:
        return {"outcome": "refused", "reason": str(error)}
    except Failed as error:
        return {"outcome": "failed", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever an architecture raises is the finding
        return {"outcome": "failed", "reason": f"{type(error).__name__}: {str(error)[:400]}"}


def limit_memory(gib: float) -> None:
    """The address space of this process."""
    resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30),) * 2)


def _equality(
    dense: nn.Module,
    model: LoadedModel,
    inputs: dict[str, Tensor],
    graph: DependencyGraph,
    removal: Removal,
    actual: Tensor,
    before: Tensor,
) -> Record:
    """Pruned against masked: the largest difference as a share of the largest output."""
    _refuse_noise(actual, "the pruned model")
    masked = copy.copy(model)
    masked.module = dense
    plain = twin.mask(dense, model.module, graph, removal)
    expected = _logits(masked, inputs)
    scale = float(expected.abs().max())
    difference = float((actual - expected).abs().max()) / scale
    moved = float((before - expected).abs().max()) / scale
    if moved < 100 * TOLERANCE:
        raise Failed(f"the cut moved the outputs by {moved:.1g} only: they could not show a mistake")
    if not difference <= TOLERANCE:
        raise Failed(f"differs from its masked twin by {difference:.2g} of the largest output")
    return {"difference": difference, "plain_mask": plain, "moved": moved}


def _train(model: LoadedModel, inputs: dict[str, Tensor]) -> None:
    """One step of SGD: every gradient is finite and the weights move."""
    torch.manual_seed(0)
    model.module.train()
    optimizer = torch.optim.SGD(model.module.parameters(), lr=1e-3)
    logits = model.logits(inputs).flatten(0, -2)
    loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64))
    loss.backward()
    grads = [parameter.grad for parameter in model.module.parameters() if parameter.grad is not None]
    if not torch.isfinite(loss) or not all(bool(torch.isfinite(grad).all()) for grad in grads):
        raise Failed("a training step gives a loss or gradients that are not finite")
    if not any(bool(grad.any()) for grad in grads):
        raise Failed("a training step gives no gradients")
    optimizer.step()
    model.module.eval()


def _refuse_noise(logits: Tensor, whose: str) -> None:
    if not torch.isfinite(logits).all():
        raise Failed(f"{whose} gives outputs that are not finite")


@torch.no_grad()
def _logits(model: LoadedModel, inputs: dict[str, Tensor]) -> Tensor:
    return model.logits(inputs)


def _macs(model: LoadedModel, inputs: dict[str, Tensor]) -> int:
    """Multiply-accumulates of one sample."""
    total, _ = macs_of(model, (), inputs)
    return (total or 0) // len(next(iter(inputs.values())))


def _parameters(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024
