"""What a dense teacher adds to the loss beside its scores: its hidden states."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

from workers.errors import PreflightError

_NAMES_SHOWN = 5


class HiddenStates:
    """The outputs of the same modules in student and teacher, caught by hooks in each forward pass.

    FitNets (Romero et al. 2015) and TinyBERT (Jiao et al. 2020) learn a projection where widths differ; here
    both sides must have one shape, as they have with masks, and in the residual stream with pruned heads and
    neurons. Raises PreflightError where a glob matches no module.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, globs: Sequence[str]) -> None:
        self._names = hidden_modules(student, globs)
        of_teacher = dict(teacher.named_modules())
        missing = [name for name in self._names if name not in of_teacher]
        if missing:
            raise PreflightError(f"fine_tune.distill.hidden_layers: the dense model has no '{missing[0]}'")
        self._student: dict[str, Tensor] = {}
        self._teacher: dict[str, Tensor] = {}
        of_student = dict(student.named_modules())
        self._handles = [
            parts[name].register_forward_hook(_catch(name, into))
            for parts, into in ((of_student, self._student), (of_teacher, self._teacher))
            for name in self._names
        ]

    def loss(self) -> Tensor:
        """Mean squared error of the last forward passes of both, mean over the modules.

        Raises PreflightError naming a module that gave no tensor or differs in shape.
        """
        losses = [self._loss_of(name) for name in self._names]
        self._student.clear()
        self._teacher.clear()
        return sum(losses[1:], losses[0]) / len(losses)

    def close(self) -> None:
        """Take the hooks off both models."""
        for handle in self._handles:
            handle.remove()

    def _loss_of(self, name: str) -> Tensor:
        student, teacher = self._student.get(name), self._teacher.get(name)
        if student is None or teacher is None:
            raise PreflightError(
                f"fine_tune.distill.hidden_layers: '{name}' gives no tensor: name another module"
            )
        if student.shape != teacher.shape:
            raise PreflightError(
                f"fine_tune.distill.hidden_layers: '{name}' gives {list(student.shape)} in the pruned model "
                f"and {list(teacher.shape)} in the dense one: name modules that keep their width"
            )
        return F.mse_loss(student.float(), teacher.detach().float())


def hidden_modules(module: nn.Module, globs: Sequence[str]) -> list[str]:
    """Names in module order that match one of `globs`; of modules inside one another, the outermost.

    Raises PreflightError where a glob matches no module.
    """
    names = [name for name, _ in module.named_modules() if name]
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            some = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
            raise PreflightError(
                f"fine_tune.distill.hidden_layers: '{glob}' matches no module (there are: {some})"
            )
    found: list[str] = []
    for name in names:  # a module comes before what it contains
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if not inside and any(fnmatchcase(name, glob) for glob in globs):
            found.append(name)
    return found


def _catch(name: str, into: dict[str, Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found = _first_tensor(output)
        if found is not None:
            into[name] = found

    return hook


def _first_tensor(output: Any) -> Tensor | None:
    """The output itself, or the first tensor of a tuple or of transformers' outputs by name."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output
    if isinstance(output, Mapping | tuple | list):
        return next((value for value in values if isinstance(value, Tensor)), None)
    return None
