"""The pruner that a spec asks for."""

from schemas.agreement import beyond_onnx
from schemas.job_spec import JobSpec
from schemas.method import Structured
from workers.errors import PreflightError
from workers.models.loaded import Batch, LoadedModel
from workers.onnx_model.module import OnnxModule
from workers.pruning.calibration import Calibration
from workers.pruning.masks import MaskPruner
from workers.pruning.pruner import Pruner
from workers.pruning.structured.pruner import UnitPruner


def make_pruner(
    spec: JobSpec, dense: LoadedModel, calibration: Calibration, example: Batch, threads: int
) -> Pruner:
    """For the model of `calibration`; `dense` is the same model before any cut, `example` a batch of two.

    Raises PreflightError where the spec does not fit the model.
    """
    if isinstance(dense.module, OnnxModule) and (reason := beyond_onnx(spec)) is not None:
        raise PreflightError(reason)
    if isinstance(spec.method, Structured):
        return UnitPruner(spec, dense, calibration, example, threads)
    return MaskPruner(spec, calibration, lambda module: calibration.model.call(module, example))
