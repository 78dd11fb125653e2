"""The files of a job beside its weights, and what is measured of them: ONNX, torch.export, INT8, latency."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from schemas.benchmark import BenchmarkResult
from schemas.job_spec import JobSpec
from schemas.method import SemiStructured
from schemas.quantize import Cluster, Int8Dynamic, Int8Static
from schemas.report import Stage
from workers.apart import Died, run_apart
from workers.benchmark.compare import compare
from workers.benchmark.sentence import UNITS_NOTE
from workers.data.bundle import Bundle
from workers.errors import PreflightError
from workers.export import OnnxExport, export_onnx
from workers.link import Meter
from workers.models.loaded import Batch, LoadedModel
from workers.models.weights import SINGLE
from workers.program.write import PROGRAM, wants_program, write_program
from workers.pruning.layers import all_of
from workers.quantization.int8 import QuantizationFailed
from workers.quantization.step import (
    INT8_FILE,
    Quantized,
    cluster,
    quantize,
    refuse_unquantizable,
    stages,
)

Examples = Callable[[int], Batch]
"""A real batch of so many samples."""


@dataclass(frozen=True)
class Models:
    """The two models of a job, with the data that judges them."""

    dense: LoadedModel
    pruned: LoadedModel
    bundle: Bundle
    example: Examples


class Results:
    """Of one job. Files that are handed out lie in `folder`, the others in `scratch`."""

    def __init__(self, scratch: Path, *, threads: int, heard: Callable[[], None]) -> None:
        self._scratch = scratch
        self._threads = threads
        self._heard = heard
        self.folder = scratch / "artifacts"
        self.onnx: OnnxExport | None = None
        """Of the pruned model."""
        self.benchmark: BenchmarkResult | None = None
        self._dense_onnx: OnnxExport | None = None
        self._quantized: Quantized | None = None
        self._int8_benchmark: BenchmarkResult | None = None

    def rehearse(self, spec: JobSpec, models: Models, meter: Meter) -> None:
        """Each export once, of the dense model or of the one that is cut. Raises PreflightError."""
        if "onnx" in spec.export:
            self._dense_onnx = self._try_export(models.dense, "dense.onnx", models.example(2))
            if spec.method.removes_units:
                self._try_export(models.pruned, "probe.onnx", models.example(2))
            meter.advance(0.8)
        if wants_program(spec, models.pruned):
            write_program(models.pruned, self._scratch / "probe.pt2", models.example(2))

    def rehearse_int8(self, spec: JobSpec, bundle: Bundle) -> None:
        """Quantize the dense model with a few samples. Raises PreflightError where that fails."""
        if self._dense_onnx is not None:
            refuse_unquantizable(spec.quantize, self._dense_onnx.files[0], bundle, seed=spec.seed)

    def _try_export(self, model: LoadedModel, name: str, example: Batch) -> OnnxExport:
        """In a process of its own, which some models crash; on a GPU, which a fork cannot share, in this."""
        if model.device.type != "cpu":
            return export_onnx(model, self._scratch / name, example)
        try:
            return run_apart(lambda: export_onnx(model, self._scratch / name, example), self._heard)
        except Died as end:
            raise PreflightError(
                f"The ONNX export of {model.architecture} crashed the process that tried it ({end}): this is "
                "a defect of torch.export. Leave 'onnx' out of export and set benchmark.backend: none."
            ) from end

    def export(self, spec: JobSpec, models: Models) -> list[str]:
        """The files that the spec asks for beside the model folder; sentences for the report."""
        if "onnx" in spec.export:
            example = models.example(2)
            if self._dense_onnx is None:
                self._dense_onnx = export_onnx(models.dense, self._scratch / "dense.onnx", example)
            self.onnx = export_onnx(models.pruned, self.folder / "model.onnx", example)
        program = self.folder / PROGRAM
        if wants_program(spec, models.pruned) and not program.exists():
            return [write_program(models.pruned, program, models.example(2))]
        return []

    def quantize(self, spec: JobSpec, models: Models, meter: Meter) -> list[str]:
        """Smaller numbers, in a file beside the pruned model's; a failure costs that file only."""
        wanted, method = spec.quantize, spec.method
        if isinstance(wanted, Cluster):
            layers = all_of(models.pruned.module).pruned
            self._quantized = cluster(
                wanted, models.pruned, layers, models.bundle, self.folder, on_share=meter.advance
            )
        elif isinstance(wanted, Int8Dynamic | Int8Static) and self.onnx is not None:
            try:
                self._quantized = quantize(
                    wanted,
                    self.onnx.files[0],
                    models.pruned,
                    models.bundle,
                    self.folder,
                    seed=spec.seed,
                    threads=self._threads,
                    pattern=(method.n, method.m) if isinstance(method, SemiStructured) else None,
                    on_share=meter.advance,
                )
            except QuantizationFailed as error:
                return [f"There is no {INT8_FILE}: ONNX Runtime cannot quantize this model ({error})."]
        return []

    def measure(self, spec: JobSpec, example: Examples, meter: Meter) -> None:
        """Dense and pruned in turns, unless the spec says none."""
        if spec.benchmark.backend == "none" or self._dense_onnx is None or self.onnx is None:
            return
        pruned, int8 = self.onnx.files[0], self.folder / INT8_FILE
        arms = 2 if int8.exists() else 1
        self.benchmark = self._compare(spec, example, pruned, lambda share: meter.advance(share / arms))
        if int8.exists():
            self._int8_benchmark = self._compare(
                spec, example, int8, lambda share: meter.advance(0.5 + share / 2)
            )

    def _compare(
        self, spec: JobSpec, example: Examples, pruned: Path, on_share: Callable[[float], None]
    ) -> BenchmarkResult:
        assert self._dense_onnx is not None
        result = compare(
            self._dense_onnx.files[0],
            pruned,
            lambda size: {name: value.cpu().numpy() for name, value in example(size).items()},
            spec.benchmark,
            threads=self._threads,
            on_round=lambda done, of: on_share(done / of),
        )
        gone = spec.method.removes_units
        return result.model_copy(update={"note": UNITS_NOTE}) if gone else result

    def stages(self, dense: Path, dense_metric: float, pruned_metric: float) -> list[Stage]:
        """Empty where nothing was quantized; `dense` is the dense model's safetensors file."""
        if self._quantized is None:
            return []
        before, after = dense, self.folder / SINGLE
        if self._quantized.file.suffix == ".onnx":
            assert self._dense_onnx is not None
            assert self.onnx is not None
            before, after = self._dense_onnx.files[0], self.onnx.files[0]
        return stages(
            self._quantized,
            (before, dense_metric),
            (after, pruned_metric),
            self.benchmark,
            self._int8_benchmark,
        )
