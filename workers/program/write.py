"""A model as a `torch.export` archive, seen to give the same scores when it is loaded alone."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from schemas.job_spec import JobSpec
from workers.errors import PreflightError
from workers.models.axes import free_axes, with_two
from workers.models.loaded import Batch, LoadedModel
from workers.program.inputs import named
from workers.program.module import ProgramModule

PROGRAM = "model.pt2"
TOLERANCE = 1e-5
"""Of the largest score, or of 1 where all are smaller."""
_REMEDY = "leave 'torch_export' out of export"


def wants_program(spec: JobSpec, model: LoadedModel) -> bool:
    """Whether the result is such a file: the spec asks for it, or the job began with one."""
    return "torch_export" in spec.export or isinstance(model.module, ProgramModule)


def write_program(model: LoadedModel, path: Path, example: Batch) -> str:
    """Write `model` to `path`; returns the sentence on how to run it.

    Its inputs have the names of the batch's, or of the program that the model came from; samples, and tokens
    of texts, may be any number. `example` is a real batch of one sample or more. The weights move to the CPU
    and back: no second copy.
    Raises PreflightError where torch.export cannot write the model, or what it wrote gives other scores.
    """
    cpu = (value.cpu() for value in example.values())
    inputs = dict(zip(example, with_two(cpu), strict=True))
    device, was_training = model.device, model.module.training
    model.module.to("cpu").eval()
    try:
        with torch.enable_grad():  # without, torch's attention becomes one operator that no pruner sees into
            torch.export.save(_exported(model, inputs), path)
        difference = _difference(model, path, inputs)
    except Exception as error:
        told = str(error).strip().partition("\n")[0][:200]
        raise PreflightError(f"torch.export cannot write {model.architecture} ({told}): {_REMEDY}") from error
    finally:
        model.module.to(device).train(was_training)
    if not difference <= TOLERANCE:
        raise PreflightError(f"{path.name} gives scores that differ by {difference:.3g}: {_REMEDY}")
    names = ", ".join(_arguments(model, inputs))
    return (
        f"{path.name} runs without Secateur by torch.export.load('{path.name}').module()({names}), "
        "which gives the scores."
    )


def _arguments(model: LoadedModel, inputs: Batch) -> dict[str, Tensor]:
    """The batch as the arguments of the archive, in order."""
    if isinstance(model.module, ProgramModule):
        return named(model.module.inputs, inputs, PROGRAM)
    return dict(inputs)


def _exported(model: LoadedModel, inputs: dict[str, Tensor]) -> ExportedProgram:
    if isinstance(model.module, ProgramModule):
        shapes = {
            one.name: {axis: Dim.AUTO for axis, size in enumerate(one.shape) if size is None}
            for one in model.module.inputs
        }
        own = tuple(_arguments(model, inputs).values())
        return torch.export.export(model.module, own, dynamic_shapes=shapes)
    axes = tuple(dict.fromkeys(free, Dim.AUTO) for free in free_axes(inputs).values())
    return torch.export.export(
        _scores(model, tuple(inputs)),
        tuple(inputs.values()),
        dynamic_shapes=dict(zip(inputs, axes, strict=True)),
    )


@torch.no_grad()
def _difference(model: LoadedModel, path: Path, inputs: dict[str, Tensor]) -> float:
    """Between the file's scores and the model's: for the batch, for one sample, for one with a token less."""
    program = torch.export.load(path).module()
    first = {name: value[:1] for name, value in inputs.items()}
    axes = free_axes(inputs)
    shorter = {
        name: value[:, :-1] if 1 in axes[name] and value.shape[1] > 2 else value
        for name, value in first.items()
    }
    worst = 0.0
    for batch in (inputs, first, shorter):
        expected = model.logits(batch)
        scores = program(*_arguments(model, batch).values())
        scale = max(1.0, float(expected.abs().max()))
        worst = max(worst, float((expected - scores).abs().max()) / scale)
    return worst


def _scores(model: LoadedModel, names: tuple[str, ...]) -> nn.Module:
    """Takes the inputs in order, under their names, and gives plain scores, whatever the library returns."""

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = model.module

        def forward(self, *inputs: Any) -> Tensor:
            return model.logits(dict(zip(names, inputs, strict=True)))  # of the same module

    named_ones = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)
    ]
    Scores.forward.__signature__ = inspect.Signature(named_ones)  # type: ignore[attr-defined]
    return Scores().eval()
