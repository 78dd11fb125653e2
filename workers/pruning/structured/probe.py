"""Groups that a module's code can lose units of, tried out on tensors without data."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from workers.errors import PreflightError
from workers.pruning.structured.graph import DependencyGraph, Group
from workers.pruning.structured.surgery import remove

Run = Callable[[nn.Module], object]
REASON = "the model's code takes its width from elsewhere: {error}"


def cuttable(module: nn.Module, graph: DependencyGraph, run: Run) -> DependencyGraph:
    """`graph` without the groups that break the forward when half of their units go; these become frozen.

    An attention that computes its head width as input width / heads cannot lose heads, whatever the graph
    says. Each kind of unit is tried by itself, since width and heads that shrink together may fit by chance:
    one forward without data. Where it fails, of groups in like modules one is tried, and where these do not
    explain it, each. `module` is left as it is. Raises PreflightError where what is left fails together.
    """
    frozen: dict[str, str] = {}
    for kind in dict.fromkeys(group.kind for group in graph.groups):
        groups = [group for group in graph.groups if group.kind == kind]
        if _failure(module, graph, groups, run) is not None:
            frozen |= _failing(module, graph, groups, run)
    left = [group for group in graph.groups if group.name not in frozen and group.kind != "hidden"]
    if (error := _failure(module, graph, left, run)) is not None:
        raise PreflightError(
            f"the model does not run after its units are removed ({error}): use pattern 'unstructured'"
        )
    both = [group for group in graph.groups if group.name not in frozen]
    if len(both) > len(left) and (error := _failure(module, graph, both, run)) is not None:
        frozen |= {group.name: REASON.format(error=error) for group in both if group.kind == "hidden"}
    groups = [group for group in graph.groups if group.name not in frozen]
    return replace(graph, groups=tuple(groups), frozen={**graph.frozen, **frozen})


def _failing(module: nn.Module, graph: DependencyGraph, groups: list[Group], run: Run) -> dict[str, str]:
    """Those of `groups` that break the forward, with the reason."""
    alike: dict[tuple[object, ...], list[Group]] = {}
    for group in groups:
        alike.setdefault(_class_of(group, module), []).append(group)
    frozen: dict[str, str] = {}
    for same in alike.values():
        if (error := _failure(module, graph, same[:1], run)) is not None:
            frozen |= {group.name: REASON.format(error=error) for group in same}
    left = [group for group in groups if group.name not in frozen]
    if _failure(module, graph, left, run) is None:
        return frozen
    for group in left:
        if (error := _failure(module, graph, [group], run)) is not None:
            frozen[group.name] = REASON.format(error=error)
    return frozen


def _class_of(group: Group, module: nn.Module) -> tuple[object, ...]:
    """What makes two groups alike: the kind, and the classes of the modules round the layers that make it."""
    path = next((axis.tensor for axis in group.axes if axis.role == "out"), group.axes[0].tensor)
    parts = path.split(".")[:-1]
    around = module.get_submodule(".".join(parts[:-1]))
    return group.kind, type(around), parts[-1] if not parts[-1].isdigit() else "", len(group.axes)


def _failure(module: nn.Module, graph: DependencyGraph, groups: Iterable[Group], run: Run) -> str | None:
    """The error's first line when half of the units of `groups` go; None: the forward runs."""
    removal = {
        group.name: np.arange(max(1, group.size // 2), dtype=np.int64) for group in groups if group.size > 1
    }
    if not removal:
        return None
    try:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        probe = _hollow(module, mode)
        with mode, torch.no_grad():
            remove(probe, graph, removal)
            run(probe.eval())
    except DataDependentOutputException:
        return _failure_with_data(module, graph, removal, run)
    except Exception as error:  # noqa: BLE001 - whatever the model's code raises on sizes it does not know
        return _first_line(error)
    return None


def _failure_with_data(
    module: nn.Module, graph: DependencyGraph, removal: dict[str, np.ndarray], run: Run
) -> str | None:
    """The same on a real copy, for code that looks at values."""
    try:
        with torch.no_grad():
            probe = copy.deepcopy(module)
            remove(probe, graph, removal)
            run(probe.eval())
    except Exception as error:  # noqa: BLE001 - whatever the model's code raises on sizes it does not know
        return _first_line(error)
    return None


def _hollow(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy whose parameters and buffers have no data."""
    memo: dict[int, Tensor] = {}
    with mode:
        for one in (*module.parameters(), *module.buffers()):
            empty = torch.empty(one.shape, dtype=one.dtype, device=one.device)
            memo[id(one)] = nn.Parameter(empty, one.requires_grad) if isinstance(one, nn.Parameter) else empty
    return copy.deepcopy(module, memo)


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return text[:160] or type(error).__name__
