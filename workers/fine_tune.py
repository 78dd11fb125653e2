"""Train a pruned model back to its metric; what was pruned stays zero."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import cos, isfinite, isnan, pi

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from schemas.fine_tune import FineTune, LrSchedule, Sgd
from workers.data.bundle import Bundle
from workers.determinism import round_seed, seed_everything
from workers.errors import DataError, ModelError, OutOfMemory
from workers.models.loaded import Batch, LoadedModel
from workers.pruning.layers import Choice, Layer


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
    """`loss` is the mean of the last epoch, None if none ran; `best_metric` is None without patience."""

    epochs_run: int
    loss: float | None
    best_metric: float | None


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
) -> FineTuneResult:
    """Train for `epochs` in round `number`, with a fresh optimizer, and leave the model in eval mode.

    The outcome depends on the weights, `seed` and `number` alone, so a round can be repeated. With
    `spec.patience`, `evaluate_epoch` is asked after each epoch. `on_step` may raise Stopped. Raises DataError
    for fewer samples than a batch, ModelError for a loss that is not finite, OutOfMemory.
    """
    if epochs == 0:
        return FineTuneResult(0, None, None)
    if len(bundle.train) < spec.batch_size:
        raise DataError(
            f"the train split has {len(bundle.train)} samples, fewer than fine_tune.batch_size "
            f"{spec.batch_size}: lower it or add data"
        )
    seed_everything(seed, number=number)
    trainer = Trainer(model, choice.pruned, spec, teacher, epochs * (len(bundle.train) // spec.batch_size))
    patience = _Patience(spec.patience)
    try:
        for epoch in range(1, epochs + 1):
            shuffle = torch.Generator().manual_seed(round_seed(seed, number=number, epoch=epoch))
            loss = _run_epoch(trainer, bundle, shuffle, number, epoch, on_step)
            if spec.patience is not None and evaluate_epoch is not None and patience.ends(evaluate_epoch()):
                break
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"fine-tuning does not fit on {model.device}: lower fine_tune.batch_size (now {spec.batch_size})"
        ) from error
    finally:
        model.module.eval()
    return FineTuneResult(epoch, loss, patience.best)


class Trainer:
    """A model with its optimizer, schedule and precision: what one step needs."""

    def __init__(
        self,
        model: LoadedModel,
        pruned: Sequence[Layer],
        spec: FineTune,
        teacher: LoadedModel | None,
        steps: int,
    ) -> None:
        self.model = model
        self.pruned = pruned
        self.spec = spec
        self.teacher = teacher
        self.steps = steps
        self.done = 0
        self.parameters = [one for one in model.module.parameters() if one.requires_grad]
        self.optimizer = optimizer_for(self.parameters, spec)
        self.schedule = LambdaLR(self.optimizer, lambda step: lr_factor(spec.lr_schedule, step, steps))
        self.autocast_to = mixed_precision(spec, model.device)
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=self.autocast_to is torch.float16)

    def step(self, inputs: Batch, labels: Tensor) -> Tensor:
        """Forward, backward, update; the loss, still on its device."""
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self._loss(inputs, labels)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        mask_gradients(self.pruned)
        if self.spec.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.spec.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.done += 1
        return loss.detach()

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(
            self.model.device.type, dtype=self.autocast_to, enabled=self.autocast_to is not None
        )

    def _loss(self, inputs: Batch, labels: Tensor) -> Tensor:
        logits = self.model.logits(inputs)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.spec.label_smoothing)
        if self.spec.distill is None or self.teacher is None:
            return loss
        with torch.no_grad():
            wanted = self.teacher.logits(inputs)
        weight = self.spec.distill.weight
        return (1 - weight) * loss + weight * distillation_loss(logits, wanted, self.spec.distill.temperature)


def mask_gradients(pruned: Sequence[Layer]) -> None:
    """Zero the gradient wherever the weight is zero, which keeps these weights zero through the step.

    A round begins with a fresh optimizer, so a pruned weight's moments start at zero and only average zero
    gradients: SGD's momentum buffer and AdamW's first moment stay 0, and 0 / (sqrt(0) + eps) moves nothing.
    Weight decay, coupled (wd · w in the gradient) or decoupled (w · (1 - lr · wd)), is a multiple of w = 0.
    Clipping scales a zero gradient to zero. So the zero is the mask, and no other is stored.
    """
    for layer in pruned:
        if layer.weight.grad is not None:
            # hardshrink's backward at lambda 0 passes the gradient where |weight| > 0: one pass without a
            # mask in memory, 0.34 ns a weight against 2.6 for `grad.mul_(weight != 0)`
            gradient, weight = layer.weight.grad, layer.weight.detach()
            torch.ops.aten.hardshrink_backward.grad_input(gradient, weight, 0.0, grad_input=gradient)


def distillation_loss(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of softened scores, mean over the batch (Hinton et al. 2015, section 2)."""
    student = F.log_softmax(logits / temperature, dim=-1)
    target = F.log_softmax(wanted / temperature, dim=-1)
    return F.kl_div(student, target, reduction="batchmean", log_target=True) * temperature**2


def optimizer_for(parameters: Sequence[nn.Parameter], spec: FineTune) -> Optimizer:
    """A fresh optimizer; biases and the weights of normalization layers (one dimension) do not decay."""
    settings = spec.optimizer
    groups = [
        {"params": [one for one in parameters if one.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [one for one in parameters if one.dim() <= 1], "weight_decay": 0.0},
    ]
    if isinstance(settings, Sgd):
        return SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    return AdamW(groups, lr=settings.lr)


def lr_factor(schedule: LrSchedule, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at `step` (from 0) of a round of `steps`."""
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.kind == "cosine":
        return 0.5 * (1 + cos(pi * (step - warmup) / max(1, steps - warmup)))
    if schedule.kind == "step":
        return 1.0 if step < steps / 2 else 0.1 if step < steps * 3 / 4 else 0.01
    return 1.0


def mixed_precision(spec: FineTune, device: torch.device) -> torch.dtype | None:
    """The dtype that CUDA computes in; None: float32, always so on a CPU."""
    if device.type != "cuda" or spec.precision == "fp32":
        return None
    if spec.precision == "auto":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if spec.precision == "bf16" else torch.float16


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
