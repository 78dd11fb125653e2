"""From a module to an ONNX file that was seen to give the same scores as PyTorch."""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from schemas.report import OnnxCheck
from workers.errors import PreflightError
from workers.models.axes import free_axes, with_two
from workers.models.loaded import Batch, LoadedModel
from workers.onnx_model.module import OnnxModule
from workers.onnx_model.write import write_onnx

OUTPUT = "logits"

RELATIVE_TOLERANCE = 1e-4
"""Of the largest output, or of 1 where all are smaller: ONNX Runtime fuses operators and reorders sums."""

LARGEST_ONE_FILE = 1_900_000_000
"""Bytes of weights that still go into the file itself: a protobuf message ends at 2 GiB."""

_REMEDY = "Leave 'onnx' out of export and set benchmark.backend: none."
_CHATTY = ("torch.onnx", "torch.export", "torch._dynamo", "torch.fx", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class OnnxExport:
    """What was written, and how it compares."""

    files: tuple[Path, ...]
    """The ONNX file first; beside it, for models of more than 2 GB, the file of its weights."""
    check: OnnxCheck
    note: str | None
    """For the report: that the weights are in a second file."""


class _Positional(nn.Module):
    """Takes the batch in order of its keys and gives plain scores, whatever the library returns."""

    def __init__(self, model: LoadedModel, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names, self.scores = model.module, names, model.call

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.scores(self.module, dict(zip(self.names, inputs, strict=True)))


def export_onnx(model: LoadedModel, path: Path, example: Batch) -> OnnxExport:
    """Write `model` to `path` with free batch (and sequence) axes, and compare it with PyTorch on `example`.

    `example` is a real batch of one sample or more. The weights move to the CPU and back: no second copy.
    Raises PreflightError where `torch.onnx` cannot export the model, or where ONNX Runtime on the CPU differs
    by more than the tolerance, for the whole batch or for its first sample alone.
    """
    inputs = {name: value.cpu() for name, value in example.items()}
    with _on_cpu(model):
        files, opset = _written(model, path, inputs)
        check = _check(model, path, inputs, opset=opset, files=files)
    if not check.matches:
        raise PreflightError(
            f"The exported ONNX file gives other scores than PyTorch: they differ by up to "
            f"{check.max_abs_diff:.3g}, {check.tolerance:.3g} is allowed "
            f"(the largest score is {check.max_abs_output:.3g}). {_REMEDY}"
        )
    return OnnxExport(files=files, check=check, note=_note(files))


def _written(model: LoadedModel, path: Path, inputs: dict[str, Tensor]) -> tuple[tuple[Path, ...], int]:
    """The files, and the opset; an ONNX file stays the one that it was, with the weights as they are now."""
    if isinstance(model.module, OnnxModule):
        return write_onnx(model.module, path, largest=LARGEST_ONE_FILE), model.module.plan.opset
    program = _export(model, inputs)
    return _save(program, model, path), program.model.opset_imports[""]


def _note(files: tuple[Path, ...]) -> str | None:
    if len(files) == 1:
        return None
    graph, weights = (file.name for file in files)
    return (
        f"The model is larger than 2 GB: the weights of {graph} are in {weights}; keep both files together."
    )


@contextmanager
def _on_cpu(model: LoadedModel) -> Iterator[None]:
    device, was_training = model.device, model.module.training
    model.module.to("cpu").eval()
    try:
        yield
    finally:
        model.module.to(device).train(was_training)


@contextmanager
def _silent() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _export(model: LoadedModel, inputs: dict[str, Tensor]) -> torch.onnx.ONNXProgram:
    names = tuple(inputs)
    wrapped = _Positional(model, names).eval()
    example = with_two(inputs.values())
    try:
        with _silent(), torch.no_grad():
            program = torch.onnx.export(
                wrapped,
                example,
                dynamo=True,
                verbose=False,
                input_names=list(names),
                output_names=[OUTPUT],
                dynamic_shapes=(tuple(free_axes(inputs).values()),),
            )
    except torch.onnx.OnnxExporterError as error:
        raise PreflightError(
            f"{model.architecture} cannot be exported to ONNX: {_root_cause(error)}. {_REMEDY}"
        ) from error
    assert program is not None
    # each node bears a stack trace with the worker's paths, more bytes than a small model's weights
    ClearMetadataAndDocStringPass()(program.model)
    return program


def _root_cause(error: BaseException) -> str:
    """The first line of the innermost exception: torch.onnx wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text[:300].rstrip(".")


def _save(program: torch.onnx.ONNXProgram, model: LoadedModel, path: Path) -> tuple[Path, ...]:
    weights = sum(tensor.nbytes for tensor in model.module.state_dict().values())
    if weights <= LARGEST_ONE_FILE:
        program.save(path, external_data=False)
        return (path,)
    program.save(path, external_data=True)
    return (path, path.with_name(path.name + ".data"))


def _check(
    model: LoadedModel, path: Path, inputs: dict[str, Tensor], *, opset: int, files: tuple[Path, ...]
) -> OnnxCheck:
    first = {name: value[:1] for name, value in inputs.items()}
    session = _session(path)
    difference = largest = 0.0
    for batch in (inputs, first):
        with torch.no_grad():
            expected = model.logits(batch).float().numpy()
        actual, *_ = session.run(None, {name: value.numpy() for name, value in batch.items()})
        # np.maximum, unlike max(), lets a NaN through, and a NaN matches nothing
        difference = float(np.maximum(difference, np.abs(expected - actual).max()))
        largest = float(np.maximum(largest, np.abs(expected).max()))
    tolerance = RELATIVE_TOLERANCE * max(1.0, largest) if math.isfinite(largest) else 0.0
    return OnnxCheck(
        opset=opset,
        bytes=sum(file.stat().st_size for file in files),
        max_abs_diff=difference,
        max_abs_output=largest,
        tolerance=tolerance,
        matches=difference <= tolerance,
    )


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
