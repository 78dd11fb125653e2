"""Train a pruned model back to its metric; what was pruned stays zero."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isfinite, isnan

import torch

from schemas.fine_tune import FineTune
from workers.data.bundle import Bundle
from workers.determinism import round_seed, seed_everything
from workers.errors import DataError, ModelError, OutOfMemory
from workers.models.loaded import LoadedModel
from workers.pruning.layers import Choice
from workers.training.average import measure_batch_norms
from workers.training.masks import MaskUpdates
from workers.training.trainer import Trainer


@dataclass(frozen=True)
class StepInfo:
    """One optimizer step; `epoch` and `step` count from 1, `step` over the whole round."""

    epoch: int
    step: int
    steps: int
    loss: float
    lr: float


@dataclass(frozen=True)
class FineTuneResult:
    """`loss` is the mean of the last epoch, None if none ran; `best_metric` is None without patience;
    `regrown` counts zeros that became weights, and as many weights zeros."""

    epochs_run: int
    loss: float | None
    best_metric: float | None
    regrown: int = 0


def fine_tune(
    model: LoadedModel,
    bundle: Bundle,
    choice: Choice,
    spec: FineTune,
    *,
    epochs: int,
    seed: int,
    number: int,
    teacher: LoadedModel | None,
    on_step: Callable[[StepInfo], None],
    evaluate_epoch: Callable[[], float] | None,
    mask_updates: MaskUpdates | None = None,
    after_backward: Callable[[], None] | None = None,
) -> FineTuneResult:
    """Train for `epochs` in round `number`, with a fresh optimizer, and leave the model in eval mode.

    The outcome depends on the weights, `seed` and `number` alone, so a round can be repeated. With
    `spec.patience`, `evaluate_epoch` is asked after each epoch, once all of `mask_updates` are made.
    `on_step` may raise Stopped; it hears of the last step again while batch norms are measured.
    `after_backward` sees each step's gradients before they are masked and clipped; with fp16 they may hold
    infinity. Raises DataError for fewer samples than a batch, ModelError for a loss that is not finite,
    OutOfMemory, PreflightError for hidden states that do not match.
    """
    if epochs == 0:
        return FineTuneResult(0, None, None)
    if len(bundle.train) < spec.batch_size:
        raise DataError(
            f"the train split has {len(bundle.train)} samples, fewer than fine_tune.batch_size "
            f"{spec.batch_size}: lower it or add data"
        )
    seed_everything(seed, number=number)
    steps = epochs * (len(bundle.train) // spec.batch_size)
    trainer = Trainer(
        model, choice.pruned, spec, teacher, steps, mask_updates=mask_updates, after_backward=after_backward
    )
    patience = _Patience(spec.patience)
    try:
        for epoch in range(1, epochs + 1):
            loss = _run_epoch(trainer, bundle, _shuffle(seed, number, epoch), number, epoch, on_step)
            if spec.patience is None or evaluate_epoch is None or not trainer.has_its_zeros:
                continue
            if patience.ends(evaluate_epoch()):
                break
        last = StepInfo(epoch, trainer.done, steps, loss, float(trainer.schedule.get_last_lr()[0]))
        _take_average(trainer, bundle, _shuffle(seed, number, epochs + 1), partial(on_step, last))
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"fine-tuning does not fit on {model.device}: lower fine_tune.batch_size (now {spec.batch_size})"
        ) from error
    finally:
        trainer.close()
        model.module.eval()
    regrown = 0 if trainer.regrowth is None else trainer.regrowth.exchanged
    return FineTuneResult(epoch, loss, patience.best, regrown)


def _shuffle(seed: int, number: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(round_seed(seed, number=number, epoch=epoch))


class _Patience:
    """Counts epochs without a better metric."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.best: float | None = None
        self._waited = 0

    def ends(self, metric: float) -> bool:
        """Take the metric of an epoch; True where it is time to stop."""
        if self.best is None or metric > self.best:
            self.best, self._waited = metric, 0
        else:
            self._waited += 1
        return self.limit is not None and self._waited >= self.limit


def _run_epoch(
    trainer: Trainer,
    bundle: Bundle,
    shuffle: torch.Generator,
    number: int,
    epoch: int,
    on_step: Callable[[StepInfo], None],
) -> float:
    """One pass over the train split; its mean loss."""
    model, spec = trainer.model, trainer.spec
    model.module.train()
    total, batches = 0.0, 0
    for inputs, labels in bundle.batches(bundle.train, spec.batch_size, device=model.device, shuffle=shuffle):
        lr = float(trainer.schedule.get_last_lr()[0])
        loss = float(trainer.step(inputs, labels))
        if not isfinite(loss):
            became = "NaN" if isnan(loss) else "infinite"
            raise ModelError(
                f"the loss became {became} in round {number}, step {trainer.done}: lower "
                f"fine_tune.optimizer.lr (now {spec.optimizer.lr}) or check the labels"
            )
        trainer.schedule.step()
        total, batches = total + loss, batches + 1
        on_step(StepInfo(epoch, trainer.done, trainer.steps, loss, lr))
    return total / batches


def _take_average(
    trainer: Trainer, bundle: Bundle, shuffle: torch.Generator, on_batch: Callable[[], None]
) -> None:
    """End with the averaged weights, if the spec asks for them, and batch norms that fit them."""
    if trainer.average is None or not trainer.average.apply():
        return
    size = trainer.spec.batch_size
    batches = bundle.batches(bundle.train, size, device=trainer.model.device, shuffle=shuffle)
    measure_batch_norms(trainer.model, batches, on_batch=on_batch)
