"""The real session: a model and its data on a device, driven by the story of a job."""

import copy
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_model as load_weights

from schemas.job_spec import JobSpec
from schemas.memory import keeps_dtype, needs_one_copy
from schemas.quantize import NoQuantization
from schemas.report import ModelFigures
from schemas.round import Checkpoint
from schemas.schedule import Gradual
from service.settings import Settings
from service.store.blobs import Blobs
from workers.cache import Cache, Entry
from workers.checkpoints import Checkpoints, Saved, State
from workers.data.bundle import Bundle
from workers.data.load import load_data_of, require_one_batch
from workers.data.remote import data_folder
from workers.determinism import make_deterministic, seed_everything
from workers.errors import NoDevice, PreflightError
from workers.evaluate import judge, metric_of
from workers.explore import Found, explore, without_int8
from workers.figures import layer_figures, model_figures
from workers.fine_tune import StepInfo
from workers.frugal import adopt, let_go
from workers.link import Link, Meter
from workers.messages import DoneMessage, JobOrder
from workers.model_files import refuse_pickles
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
from workers.results import Models, Results
from workers.room import require_room
from workers.story import Outcome, Pruned
from workers.training.round import train_round
from workers.transfer import DATA_FILES, MODEL_FILES

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
        self._results = Results(self._scratch, threads=self._order.threads, heard=self._link.raise_if_stopped)
        self._explored: Found | None = None
        self._notes: list[str] = []
        self._share = 0.0
        self._others: dict[str, float] | None = None
        self._dense_others: dict[str, float] | None = None
        self._restored = State()
        make_deterministic(threads=self._order.threads)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pull(self, meter: Meter) -> None:
        """Model and data to the local cache, then into memory; OutOfMemory where they have no room there.

        Raises ModelError, DataError, StorageError too.
        """
        seed_everything(self._spec.seed, number=0)
        self._device = self._find_device()
        model = self._fetch(self._spec.model.uri, MODEL_FILES, meter, 0.0)
        fetch = partial(self._fetch, allow=DATA_FILES, meter=meter, base=0.5)
        data = data_folder(self._spec.data, self._cache, fetch, self._link.raise_if_stopped)
        refuse_pickles(model.skipped, model.path)
        require_room(self._spec, model.path, self._device)
        self._folder = model.path
        self._model = self._load(model.path)
        self._one_copy = needs_one_copy(self._spec)
        self._dense = (
            self._model
            if self._one_copy
            else replace(self._model, module=copy.deepcopy(self._model.module).requires_grad_(False))
        )
        self._bundle = load_data_of(self._spec, data, self._model)
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
        data, keeps = self._spec.data, keeps_dtype(self._spec)
        model = load_model(folder, data.task, keep_dtype=keeps, plugin=data.plugin)
        model.module.to(self._device)
        return model

    def preflight(self, meter: Meter) -> None:
        """On a copy: the cut to the final share, one training step, one forward; then the exports.

        Raises PreflightError, DataError, ModelError, OutOfMemory: minutes, not hours, into the job.
        """
        trains = self._spec.trains
        if trains:
            require_one_batch(self._bundle, self._spec.fine_tune.batch_size)
        probe = self._model
        if not self._one_copy:
            probe = replace(probe, module=copy.deepcopy(probe.module))
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
        self._results.rehearse(self._spec, replace(self._models(), pruned=probe), meter)
        self._rehearse_int8()
        if self._one_copy:
            self._reload()

    def _rehearse_int8(self) -> None:
        """A recipe's own choice of INT8 is dropped where the model cannot have it."""
        try:
            self._results.rehearse_int8(self._spec, self._bundle)
        except PreflightError as error:
            if self._explored is None:
                raise
            self._spec = self._spec.model_copy(update={"quantize": NoQuantization()})
            self._explored = without_int8(self._explored, self._spec, str(error))

    def _models(self) -> Models:
        return Models(self._dense, self._model, self._bundle, self._example)

    def _first_batch(self) -> Bundle:
        size, bundle = self._spec.fine_tune.batch_size, self._bundle
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
        metric = self.evaluate(meter)
        self._dense_others = self._others
        return metric

    def evaluate(self, meter: Meter) -> float:
        """The metric of the model as it is now."""
        measured = judge(
            self._model,
            self._bundle,
            batch_size=EVALUATION_BATCH,
            on_batch=lambda done, of: meter.advance(done / of),
        )
        self._others = dict(measured.others)
        return measured.value

    def _judge(self, model: LoadedModel) -> dict[str, float]:
        """What is measured beside the metric, for a round whose checkpoint does not say it."""
        measured = judge(
            model,
            self._bundle,
            batch_size=EVALUATION_BATCH,
            on_batch=lambda *_: self._link.raise_if_stopped(),
        )
        return dict(measured.others)

    def explore(self, dense_metric: float, floor: float, meter: Meter) -> JobSpec:
        """Recipe `auto`: measure the dense model, choose, and go on with the spec that was chosen."""
        found = self._found_before() or self._explore(dense_metric, floor, meter)
        self._spec, self._explored = found.spec, found
        self._pruner = self._pruner_of(self._model, self._bundle)
        return found.spec

    def _explore(self, dense_metric: float, floor: float, meter: Meter) -> Found:
        calibration = Calibration(
            self._model, self._bundle, self._spec.seed, EVALUATION_BATCH, self._link.raise_if_stopped
        )
        example = self._example(2)
        return explore(self._spec, calibration, dense_metric, floor, example, on_share=meter.advance)

    def _found_before(self) -> Found | None:
        """What an earlier attempt decided; None where this is the first, or none wrote it down."""
        if self._order.checkpoint is None:
            return None
        state = self._checkpoints.state_of(self._order.checkpoint)
        return None if state.spec is None else Found(state.spec, state.curves, state.decisions)

    def restore(self, checkpoint: Checkpoint) -> None:
        """The shapes and weights of a committed round, and so its zeros."""
        saved = self._checkpoints.fetch(checkpoint)
        self._take(saved)
        self._restored, self._dense_others = saved.state, saved.state.dense_metrics

    def rollback(self) -> None:
        """Back to the last round that held, or to the dense model."""
        self._take(self._checkpoints.last)

    def _take(self, saved: Saved | None) -> None:
        self._pruner.reset(saved.surgery if saved else None)
        self._others = self._dense_others if saved is None else saved.state.metrics
        if saved is None and self._one_copy:
            self._reload()
        elif saved is None:
            self._model.module.load_state_dict(self._dense.module.state_dict())
        else:
            load_weights(self._model.module, str(saved.weights))

    def _reload(self) -> None:
        """The dense weights from the local files again, in the place of those that were cut."""
        let_go(self._model.module)
        adopt(self._model.module, self._load(self._folder).module)

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
        return self._checkpoints.save(
            self._model.module, self._pruner.surgery(), self._state(), number, dense_metric
        )

    def export(self, meter: Meter) -> None:
        """The result as files: the model folder, and others that are asked for."""
        self._notes += self._save(self._model, self._results.folder)
        meter.advance(0.5)
        self._notes += self._results.export(self._spec, self._models())

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
        self._notes += self._results.quantize(self._spec, self._models(), meter)

    def benchmark(self, meter: Meter) -> None:
        """Dense and pruned in turns, unless the spec says none."""
        self._results.measure(self._spec, self._example, meter)

    def publish(self, outcome: Outcome, meter: Meter) -> DoneMessage:
        """Report, pages and files to S3; the job's end names them."""
        findings = self._findings(outcome)
        order = self._order.model_copy(update={"spec": self._spec})
        steps = [*self._order.steps_before, *self._link.steps]
        return publish(order, outcome, findings, steps, self._blobs, self._results.folder, meter)

    def _findings(self, outcome: Outcome) -> Findings:
        """Those of the pruned model first: where there is one copy of the weights it becomes the dense."""
        choice = self._pruner.choice
        layers = choice if choice.layers else resized(self._model.module, self._dense.module)
        layer_rows, groups, told = layer_figures(layers), self._pruner.groups(), self._state()
        if self._others is None:
            self._others = self._judge(self._model)
        pruned = self._figures(self._model, self._results.folder, outcome.best().metric, self._others)
        if self._one_copy:
            self._reload()
        if self._dense_others is None:
            self._dense_others = self._judge(self._dense)
        dense_folder = self._scratch / "dense"
        self._save(self._dense, dense_folder)
        return Findings(
            dense=self._figures(self._dense, dense_folder, outcome.dense_metric, self._dense_others),
            pruned=pruned,
            layers=layer_rows,
            onnx=self._results.onnx,
            benchmark=self._results.benchmark,
            device=self._device,
            architecture=self._model.architecture,
            metric_name=self._model.kind.metric_name,
            samples=(len(self._bundle.train), len(self._bundle.validation)),
            groups=groups,
            stages=self._results.stages(dense_folder / SINGLE, outcome.dense_metric, outcome.best().metric),
            curves=told.curves,
            decisions=told.decisions,
            notes=[*told.notes, *self._notes],
        )

    def _state(self) -> State:
        """What the report says that the weights do not; an attempt that goes on adds to what it was left."""
        found, left = self._explored, self._restored
        notes = dict.fromkeys([*left.notes, *self._pruner.notes()])
        return State(
            spec=None if found is None else self._spec,
            metrics=self._others,
            dense_metrics=self._dense_others,
            curves=(found.curves if found else self._pruner.curves()) or left.curves,
            decisions=found.decisions if found else [],
            notes=list(notes),
        )

    def _figures(
        self, model: LoadedModel, folder: Path, metric: float, others: dict[str, float]
    ) -> ModelFigures:
        figures = model_figures(
            model, all_of(model.module), sample=self._example(1), file=folder / SINGLE, metric=metric
        )
        return figures.model_copy(update={"metrics": others})
