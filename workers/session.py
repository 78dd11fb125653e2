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

from schemas.benchmark import BenchmarkResult
from schemas.round import Checkpoint
from service.settings import Settings
from service.store.blobs import Blobs
from workers.benchmark.compare import compare
from workers.cache import Cache, Entry
from workers.checkpoints import Checkpoints
from workers.data.bundle import Bundle
from workers.data.load import load_bundle, require_one_batch
from workers.determinism import make_deterministic, seed_everything
from workers.errors import ModelError, NoDevice
from workers.evaluate import accuracy
from workers.export import OnnxExport, export_onnx
from workers.figures import layer_figures, model_figures
from workers.fine_tune import StepInfo, fine_tune
from workers.link import Link, Meter
from workers.messages import DoneMessage, JobOrder
from workers.models.load import load_model
from workers.models.loaded import LoadedModel
from workers.models.save import save_model
from workers.models.weights import SINGLE
from workers.patience import patiently
from workers.pruning.cut import cut
from workers.pruning.layers import Choice, choose, packed_attention, prunable_layers
from workers.publish import Findings, publish
from workers.story import Outcome
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
        self._benchmark: BenchmarkResult | None = None
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
        self._choice = choose(prunable_layers(self._model.module), self._spec.method)

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
        """On a copy: the cut at the final sparsity, one training step, one forward; then one export.

        Raises PreflightError, DataError, ModelError, OutOfMemory: minutes, not hours, into the job.
        """
        if self._spec.fine_tune.epochs + self._spec.fine_tune.final_epochs:
            require_one_batch(self._bundle, self._spec.fine_tune.batch_size)
        probe = replace(self._model, module=copy.deepcopy(self._model.module))
        choice = choose(prunable_layers(probe.module), self._spec.method)
        self._cut(choice, self._spec.goal.sparsity, number=0)
        few = self._first_batch()
        accuracy(probe, few, batch_size=len(few.validation), on_batch=lambda *_: meter.advance(0.3))
        if self._spec.fine_tune.epochs + self._spec.fine_tune.final_epochs:
            self._train(probe, choice, few, 0, 1, lambda _: meter.advance(0.5), None)
        if "onnx" in self._spec.export:
            self._dense_onnx = export_onnx(self._dense, self._scratch / "dense.onnx", self._example(2))

    def _first_batch(self) -> Bundle:
        size = min(self._spec.fine_tune.batch_size, len(self._bundle.train))
        train = self._bundle.train.take(torch.arange(size))
        validation = self._bundle.validation.take(torch.arange(min(size, len(self._bundle.validation))))
        return replace(self._bundle, train=train, validation=validation)

    def _example(self, size: int) -> dict[str, torch.Tensor]:
        """A real batch of `size` samples; a small split repeats itself."""
        index = torch.arange(size) % len(self._bundle.validation)
        inputs = self._bundle.transform(self._bundle.validation.take(index).inputs)
        return {name: value.to(self._device) for name, value in inputs.items()}

    def baseline(self, meter: Meter) -> float:
        """The dense model's metric."""
        return self.evaluate(meter)

    def evaluate(self, meter: Meter) -> float:
        """The metric of the model as it is now."""
        return accuracy(
            self._model,
            self._bundle,
            batch_size=EVALUATION_BATCH,
            on_batch=lambda done, of: meter.advance(done / of),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """The weights of a committed round, and so its zeros."""
        self._checkpoints.restore(self._model.module, checkpoint)

    def prune(self, number: int) -> float:
        """The cut of round `number`; returns the sparsity of the pruned layers."""
        return self._cut(self._choice, self._spec.sparsity_after(number), number=number)

    def _cut(self, choice: Choice, sparsity: float, *, number: int) -> float:
        method = self._spec.method
        result = cut(
            choice, method.criterion, method.allocation, sparsity, seed=self._spec.seed, number=number
        )
        return result.sparsity

    def fine_tune(self, number: int, epochs: int, meter: Meter) -> tuple[int, float | None]:
        """Train round `number`; returns the epochs run and the mean loss of the last."""

        def on_step(info: StepInfo) -> None:
            meter.advance(info.step / info.steps, loss=info.loss)

        def evaluate_epoch() -> float:
            return accuracy(
                self._model,
                self._bundle,
                batch_size=EVALUATION_BATCH,
                on_batch=lambda *_: self._link.raise_if_stopped(),
            )

        return self._train(self._model, self._choice, self._bundle, number, epochs, on_step, evaluate_epoch)

    def _train(
        self,
        model: LoadedModel,
        choice: Choice,
        bundle: Bundle,
        number: int,
        epochs: int,
        on_step: Callable[[StepInfo], None],
        evaluate_epoch: Callable[[], float] | None,
    ) -> tuple[int, float | None]:
        spec = self._spec.fine_tune
        result = fine_tune(
            model,
            bundle,
            choice,
            spec,
            epochs=epochs,
            seed=self._spec.seed,
            number=number,
            teacher=self._dense if spec.distill else None,
            on_step=on_step,
            evaluate_epoch=evaluate_epoch,
        )
        return result.epochs_run, result.loss

    def checkpoint(self, number: int, dense_metric: float) -> Checkpoint:
        """The weights of this round in S3, not yet committed."""
        return self._checkpoints.save(self._model.module, number, dense_metric)

    def rollback(self) -> None:
        """Back to the last round that held."""
        self._checkpoints.rollback(self._model.module)

    def export(self, meter: Meter) -> None:
        """The result as files: the model folder, and ONNX when asked for."""
        self._out = self._scratch / "artifacts"
        save_model(self._model, self._out)
        self._pruned_onnx: OnnxExport | None = None
        if "onnx" in self._spec.export:
            if self._dense_onnx is None:
                self._dense_onnx = export_onnx(self._dense, self._scratch / "dense.onnx", self._example(2))
            meter.advance(0.5)
            self._pruned_onnx = export_onnx(self._model, self._out / "model.onnx", self._example(2))

    def benchmark(self, meter: Meter) -> None:
        """Dense and pruned in turns, unless the spec says none."""
        if self._spec.benchmark.backend == "none" or self._dense_onnx is None or self._pruned_onnx is None:
            return

        def feeds(size: int) -> dict[str, np.ndarray]:
            return {name: value.cpu().numpy() for name, value in self._example(size).items()}

        self._benchmark = compare(
            self._dense_onnx.files[0],
            self._pruned_onnx.files[0],
            feeds,
            self._spec.benchmark,
            threads=self._order.threads,
            on_round=lambda done, of: meter.advance(done / of),
        )

    def publish(self, outcome: Outcome, meter: Meter) -> DoneMessage:
        """Report, pages and files to S3; the job's end names them."""
        dense_folder = self._scratch / "dense"
        save_model(self._dense, dense_folder)
        sample = self._example(1)
        dense_choice = choose(prunable_layers(self._dense.module), self._spec.method)
        findings = Findings(
            dense=model_figures(
                self._dense,
                dense_choice,
                sample=sample,
                file=dense_folder / SINGLE,
                metric=outcome.dense_metric,
            ),
            pruned=model_figures(
                self._model,
                self._choice,
                sample=sample,
                file=self._out / SINGLE,
                metric=outcome.best().metric,
            ),
            layers=layer_figures(self._choice),
            onnx=self._pruned_onnx,
            benchmark=self._benchmark,
            device=self._device,
            architecture=self._model.architecture,
            samples=(len(self._bundle.train), len(self._bundle.validation)),
            packed_attention=packed_attention(self._model.module),
        )
        steps = [*self._order.steps_before, *self._link.steps]
        return publish(self._order, outcome, findings, steps, self._blobs, self._out, meter)


def _refuse_pickles(entry: Entry) -> None:
    """ModelError when the folder has pickles and no safetensors."""
    pickles = [name for name in entry.skipped if name.endswith(PICKLES)]
    if pickles and not any(entry.path.glob("*.safetensors")):
        raise ModelError(
            f"The model folder has {', '.join(pickles[:3])} where *.safetensors should be. A pickle can run "
            "code, so it is never opened: load the model yourself and save it with save_pretrained()."
        )
