"""The real session: a model and its data on a device, driven by the story of a job."""

import copy
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_model as load_weights

from schemas.benchmark import BenchmarkResult
from schemas.job_spec import JobSpec
from schemas.method import SemiStructured
from schemas.quantize import Cluster, Int8Dynamic, Int8Static
from schemas.report import ModelFigures, Stage
from schemas.round import Checkpoint
from schemas.schedule import Gradual
from service.settings import Settings
from service.store.blobs import Blobs
from workers.benchmark.compare import compare
from workers.benchmark.sentence import UNITS_NOTE
from workers.cache import Cache, Entry
from workers.checkpoints import Checkpoints, Saved
from workers.data.bundle import Bundle
from workers.data.load import load_bundle, require_one_batch
from workers.determinism import make_deterministic, seed_everything
from workers.errors import ModelError, NoDevice
from workers.evaluate import metric_of
from workers.explore import Found, explore
from workers.export import OnnxExport, export_onnx
from workers.figures import layer_figures, model_figures
from workers.fine_tune import StepInfo
from workers.link import Link, Meter
from workers.messages import DoneMessage, JobOrder
from workers.models.folder import read_config
from workers.models.load import load_model
from workers.models.loaded import LoadedModel
from workers.models.save import save_model
from workers.models.weights import SINGLE
from workers.patience import patiently
from workers.pruning.calibration import Calibration
from workers.pruning.layers import all_of, resized
from workers.pruning.make import make_pruner
from workers.pruning.pruner import Pruner
from workers.pruning.structured.history import History
from workers.pruning.structured.reload import is_pruned, save_pruned
from workers.publish import Findings, publish
from workers.quantization.int8 import QuantizationFailed
from workers.quantization.step import (
    INT8_FILE,
    Quantized,
    cluster,
    quantize,
    refuse_unquantizable,
    stages,
)
from workers.story import Outcome, Pruned
from workers.training.round import train_round
from workers.transfer import DATA_FILES, MODEL_FILES, PICKLES

EVALUATION_BATCH = 256


class TorchSession:
    """A context: it holds the cache entries and a scratch folder until the job has left this process."""

    def __init__(self, order: JobOrder, link: Link) -> None:
        self._order = order
        self._spec = order.spec
        self._link = link
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        settings = Settings()
        self._blobs = Blobs.connect(settings)
        self._cache = Cache.of(settings, self._blobs)
        self._scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="secateur-")))
        self._checkpoints = Checkpoints(self._order, self._blobs, self._scratch, self._link.raise_if_stopped)
        self._dense_onnx: OnnxExport | None = None
        self._pruned_onnx: OnnxExport | None = None
        self._explored: Found | None = None
        self._notes: list[str] = []
        self._share = 0.0
        self._quantized: Quantized | None = None
        self._benchmark: BenchmarkResult | None = None
        self._int8_benchmark: BenchmarkResult | None = None
        make_deterministic(threads=self._order.threads)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pull(self, meter: Meter) -> None:
        """Model and data to the local cache, then into memory. Raises ModelError, DataError, StorageError."""
        seed_everything(self._spec.seed, number=0)
        self._device = self._find_device()
        model = self._fetch(self._spec.model.uri, MODEL_FILES, meter, 0.0)
        data = self._fetch(self._spec.data.uri, DATA_FILES, meter, 0.5)
        _refuse_pickles(model)
        self._model = self._load(model.path)
        self._dense = replace(self._model, module=copy.deepcopy(self._model.module).requires_grad_(False))
        self._bundle = load_bundle(data.path, self._spec.data, self._model, seed=self._spec.seed)
        if self._spec.recipe is None:
            self._pruner = self._pruner_of(self._model, self._bundle)

    def _pruner_of(self, model: LoadedModel, bundle: Bundle) -> Pruner:
        calibration = Calibration(
            model, bundle, self._spec.seed, self._spec.fine_tune.batch_size, self._link.raise_if_stopped
        )
        return make_pruner(self._spec, self._dense, calibration, self._example(2), self._order.threads)

    def _find_device(self) -> torch.device:
        if self._order.device == "cuda" and not torch.cuda.is_available():
            raise NoDevice(
                "The worker has a GPU, but PyTorch cannot use it: check the driver and the PyTorch build."
            )
        return torch.device(self._order.device)

    def _fetch(self, uri: str, allow: tuple[str, ...], meter: Meter, base: float) -> Entry:
        def on_bytes(done: int, of: int) -> None:
            meter.advance(base + 0.5 * done / max(of, 1))

        def fetch() -> Entry:
            return self._stack.enter_context(self._cache.folder(uri, allow=allow, on_bytes=on_bytes))

        return patiently(fetch, self._link.raise_if_stopped)

    def _load(self, folder: Path) -> LoadedModel:
        model = load_model(folder, self._spec.data.task)
        model.module.to(self._device)
        return model

    def preflight(self, meter: Meter) -> None:
        """On a copy: the cut to the final share, one training step, one forward; then the exports.

        Raises PreflightError, DataError, ModelError, OutOfMemory: minutes, not hours, into the job.
        """
        trains = self._spec.fine_tune.epochs + self._spec.fine_tune.final_epochs > 0
        if trains:
            require_one_batch(self._bundle, self._spec.fine_tune.batch_size)
        probe = replace(self._model, module=copy.deepcopy(self._model.module))
        few = self._first_batch()
        pruner = self._pruner_of(probe, few)
        pruner.prune(self._spec.removed_after(self._spec.rounds_in_all()), 0)
        metric_of(probe, few, batch_size=len(few.validation), on_batch=lambda *_: meter.advance(0.3))
        if trains:
            train_round(
                self._spec,
                probe,
                self._dense,
                few,
                pruner,
                share=self._spec.removed_after(self._spec.rounds_in_all()),
                number=0,
                epochs=1,
                on_step=lambda _: meter.advance(0.5),
                evaluate_epoch=None,
            )
        if "onnx" in self._spec.export:
            example = self._example(2)
            self._dense_onnx = export_onnx(self._dense, self._scratch / "dense.onnx", example)
            if self._spec.method.removes_units:
                export_onnx(probe, self._scratch / "probe.onnx", example)
            meter.advance(0.8)
            refuse_unquantizable(
                self._spec.quantize, self._dense_onnx.files[0], self._bundle, seed=self._spec.seed
            )

    def _first_batch(self) -> Bundle:
        size = min(self._spec.fine_tune.batch_size, len(self._bundle.train))
        bundle = self._bundle
        return replace(
            bundle,
            train=bundle.train.first(size),
            validation=bundle.validation.first(size),
            calibration=bundle.calibration.first(size) if bundle.calibration else None,
        )

    def _example(self, size: int) -> dict[str, torch.Tensor]:
        """A real batch of `size` samples; a small split repeats itself."""
        index = torch.arange(size) % len(self._bundle.validation)
        samples = self._bundle.validation.take(index)
        inputs, _ = next(self._bundle.batches(samples, size, device=self._device))
        return inputs

    def baseline(self, meter: Meter) -> float:
        """The dense model's metric."""
        return self.evaluate(meter)

    def evaluate(self, meter: Meter) -> float:
        """The metric of the model as it is now."""
        return metric_of(
            self._model,
            self._bundle,
            batch_size=EVALUATION_BATCH,
            on_batch=lambda done, of: meter.advance(done / of),
        )

    def explore(self, dense_metric: float, floor: float, meter: Meter) -> JobSpec:
        """Recipe `auto`: measure the dense model, choose, and go on with the spec that was chosen."""
        calibration = Calibration(
            self._model, self._bundle, self._spec.seed, EVALUATION_BATCH, self._link.raise_if_stopped
        )
        example = self._example(2)
        found = explore(self._spec, calibration, dense_metric, floor, example, on_share=meter.advance)
        self._spec, self._explored = found.spec, found
        self._pruner = self._pruner_of(self._model, self._bundle)
        return found.spec

    def restore(self, checkpoint: Checkpoint) -> None:
        """The shapes and weights of a committed round, and so its zeros."""
        self._take(self._checkpoints.fetch(checkpoint))

    def rollback(self) -> None:
        """Back to the last round that held, or to the dense model."""
        self._take(self._checkpoints.last)

    def _take(self, saved: Saved | None) -> None:
        self._pruner.reset(saved.surgery if saved else None)
        if saved is None:
            self._model.module.load_state_dict(self._dense.module.state_dict())
        else:
            load_weights(self._model.module, str(saved.weights))

    def prune(self, number: int, share: float, meter: Meter) -> None:
        """The cut of round `number`: `share` of the goal's quantity is gone after it."""
        self._share = share
        if not isinstance(self._spec.schedule, Gradual):
            self._pruner.prune(share, number)
        meter.advance(0.5)

    def pruned(self) -> Pruned:
        """What is gone now."""
        return self._pruner.pruned()

    def fine_tune(self, number: int, epochs: int, meter: Meter) -> tuple[int, float | None]:
        """Train round `number`; returns the epochs run and the mean loss of the last."""

        def on_step(info: StepInfo) -> None:
            meter.advance(info.step / info.steps, loss=info.loss)

        def evaluate_epoch() -> float:
            return metric_of(
                self._model,
                self._bundle,
                batch_size=EVALUATION_BATCH,
                on_batch=lambda *_: self._link.raise_if_stopped(),
            )

        result = train_round(
            self._spec,
            self._model,
            self._dense,
            self._bundle,
            self._pruner,
            share=self._share,
            number=number,
            epochs=epochs,
            on_step=on_step,
            evaluate_epoch=evaluate_epoch,
        )
        return result.epochs_run, result.loss

    def checkpoint(self, number: int, dense_metric: float) -> Checkpoint:
        """The weights of this round in S3, not yet committed."""
        return self._checkpoints.save(self._model.module, self._pruner.surgery(), number, dense_metric)

    def export(self, meter: Meter) -> None:
        """The result as files: the model folder, and ONNX when asked for."""
        self._out = self._scratch / "artifacts"
        self._notes += self._save(self._model, self._out)
        meter.advance(0.5)
        if "onnx" in self._spec.export:
            if self._dense_onnx is None:
                self._dense_onnx = export_onnx(self._dense, self._scratch / "dense.onnx", self._example(2))
            self._pruned_onnx = export_onnx(self._model, self._out / "model.onnx", self._example(2))

    def _save(self, model: LoadedModel, folder: Path) -> list[str]:
        """A model folder, and what the report says of it."""
        surgery = self._pruner.surgery() if model is self._model else None
        if surgery is None and not is_pruned(read_config(model.folder)):
            save_model(model, folder)
            return []
        history = History() if surgery is None else History.model_validate_json(surgery)
        return save_pruned(model, history, folder, self._example(2))

    def quantize(self, meter: Meter) -> None:
        """Smaller numbers, in a file beside the pruned model's; a failure costs that file only."""
        spec, method = self._spec.quantize, self._spec.method
        if isinstance(spec, Cluster):
            layers = all_of(self._model.module).pruned
            self._quantized = cluster(
                spec, self._model, layers, self._bundle, self._out, on_share=meter.advance
            )
        elif isinstance(spec, Int8Dynamic | Int8Static) and self._pruned_onnx is not None:
            try:
                self._quantized = quantize(
                    spec,
                    self._pruned_onnx.files[0],
                    self._model,
                    self._bundle,
                    self._out,
                    seed=self._spec.seed,
                    threads=self._order.threads,
                    pattern=(method.n, method.m) if isinstance(method, SemiStructured) else None,
                    on_share=meter.advance,
                )
            except QuantizationFailed as error:
                self._notes.append(
                    f"There is no {INT8_FILE}: ONNX Runtime cannot quantize this model ({error})."
                )

    def _feeds(self, size: int) -> dict[str, np.ndarray]:
        return {name: value.cpu().numpy() for name, value in self._example(size).items()}

    def benchmark(self, meter: Meter) -> None:
        """Dense and pruned in turns, unless the spec says none."""
        if self._spec.benchmark.backend == "none" or self._dense_onnx is None or self._pruned_onnx is None:
            return
        pruned, int8 = self._pruned_onnx.files[0], self._out / INT8_FILE
        arms = 2 if int8.exists() else 1
        self._benchmark = self._compare(pruned, lambda share: meter.advance(share / arms))
        if int8.exists():
            self._int8_benchmark = self._compare(int8, lambda share: meter.advance(0.5 + share / 2))

    def _compare(self, pruned: Path, on_share: Callable[[float], None]) -> BenchmarkResult:
        assert self._dense_onnx is not None
        result = compare(
            self._dense_onnx.files[0],
            pruned,
            self._feeds,
            self._spec.benchmark,
            threads=self._order.threads,
            on_round=lambda done, of: on_share(done / of),
        )
        gone = self._spec.method.removes_units
        return result.model_copy(update={"note": UNITS_NOTE}) if gone else result

    def _stages(self, dense: Path, outcome: Outcome) -> list[Stage]:
        """Empty where nothing was quantized."""
        if self._quantized is None:
            return []
        before, after = dense, self._out / SINGLE
        if self._quantized.file.suffix == ".onnx":
            assert self._dense_onnx is not None
            assert self._pruned_onnx is not None
            before, after = self._dense_onnx.files[0], self._pruned_onnx.files[0]
        return stages(
            self._quantized,
            (before, outcome.dense_metric),
            (after, outcome.best().metric),
            self._benchmark,
            self._int8_benchmark,
        )

    def publish(self, outcome: Outcome, meter: Meter) -> DoneMessage:
        """Report, pages and files to S3; the job's end names them."""
        dense_folder = self._scratch / "dense"
        self._save(self._dense, dense_folder)
        pruned = self._figures(self._model, self._out, outcome.best().metric)
        choice = self._pruner.choice
        layers = choice if choice.layers else resized(self._model.module, self._dense.module)
        findings = Findings(
            dense=self._figures(self._dense, dense_folder, outcome.dense_metric),
            pruned=pruned,
            layers=layer_figures(layers),
            onnx=self._pruned_onnx,
            benchmark=self._benchmark,
            device=self._device,
            architecture=self._model.architecture,
            samples=(len(self._bundle.train), len(self._bundle.validation)),
            groups=self._pruner.groups(),
            stages=self._stages(dense_folder / SINGLE, outcome),
            curves=self._explored.curves if self._explored else self._pruner.curves(),
            decisions=self._explored.decisions if self._explored else [],
            notes=[*self._pruner.notes(), *self._notes],
        )
        order = self._order.model_copy(update={"spec": self._spec})
        steps = [*self._order.steps_before, *self._link.steps]
        return publish(order, outcome, findings, steps, self._blobs, self._out, meter)

    def _figures(self, model: LoadedModel, folder: Path, metric: float) -> ModelFigures:
        return model_figures(
            model, all_of(model.module), sample=self._example(1), file=folder / SINGLE, metric=metric
        )


def _refuse_pickles(entry: Entry) -> None:
    """ModelError when the folder has pickles and no safetensors."""
    pickles = [name for name in entry.skipped if name.endswith(PICKLES)]
    if pickles and not any(entry.path.glob("*.safetensors")):
        raise ModelError(
            f"The model folder has {', '.join(pickles[:3])} where *.safetensors should be. A pickle can run "
            "code, so it is never opened: load the model yourself and save it with save_pretrained()."
        )
