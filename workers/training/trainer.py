"""One training step: forward, backward, masks, update."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from schemas.fine_tune import Distill, FineTune
from workers.models.loaded import Batch, LoadedModel
from workers.pruning.layers import Layer
from workers.training.average import WeightAverage
from workers.training.distill import HiddenStates
from workers.training.masks import MaskUpdates, forget_zeros, mask_gradients
from workers.training.optimizer import lr_factor, mixed_precision, optimizer_for
from workers.training.regrow import Regrowth


class Trainer:
    """A model with its optimizer, schedule and precision: what one step needs."""

    def __init__(
        self,
        model: LoadedModel,
        pruned: Sequence[Layer],
        spec: FineTune,
        teacher: LoadedModel | None,
        steps: int,
        *,
        mask_updates: MaskUpdates | None = None,
        after_backward: Callable[[], None] | None = None,
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
        self.average = WeightAverage(spec.average, self.parameters, steps) if spec.average else None
        self.regrowth = Regrowth(spec.regrow, pruned, self.optimizer, steps) if spec.regrow else None
        self.hidden = _hidden_states(model, teacher, spec.distill)
        self._mask_updates = mask_updates
        self._after_backward = after_backward

    def step(self, inputs: Batch, labels: Tensor) -> Tensor:
        """Forward, backward, update; the loss, still on its device."""
        if self._mask_updates is not None:
            self._cut(self._mask_updates)
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self._loss(inputs, labels)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        if self._after_backward is not None:
            self._after_backward()
        moved = self._mask_gradients()
        if self.spec.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.spec.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if moved:
            self._settle()
        if self.average is not None:
            self.average.update(self.done)
        self.done += 1
        return loss.detach()

    @property
    def has_its_zeros(self) -> bool:
        """Whether all cuts within the training are made."""
        return self._mask_updates is None or self.done > self._mask_updates.last_step(self.steps)

    def close(self) -> None:
        """Leave no hooks behind on model and teacher."""
        if self.hidden is not None:
            self.hidden.close()

    def _cut(self, updates: MaskUpdates) -> None:
        share = updates.share_at(self.done, self.steps)
        if share is None:
            return
        updates.cut_to(share)
        self.model.module.train()  # a criterion that measures does so in eval mode
        forget_zeros(self.optimizer, self.pruned)
        if self.average is not None:
            self.average.restart()

    def _mask_gradients(self) -> bool:
        """True where zeros moved."""
        if self.regrowth is not None:
            return self.regrowth.mask_gradients(self.done)
        mask_gradients(self.pruned)
        return False

    def _settle(self) -> None:
        if self.regrowth is not None:
            self.regrowth.settle()
        if self.average is not None:
            self.average.restart()

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(
            self.model.device.type, dtype=self.autocast_to, enabled=self.autocast_to is not None
        )

    def _loss(self, inputs: Batch, labels: Tensor) -> Tensor:
        logits = self.model.logits(inputs)
        loss = self.model.kind.loss(logits, labels, label_smoothing=self.spec.label_smoothing)
        distill = self.spec.distill
        if distill is None or self.teacher is None:
            return loss
        with torch.no_grad():
            wanted = self.teacher.logits(inputs)
        softened = self.model.kind.distillation(logits, wanted, distill.temperature)
        loss = (1 - distill.weight) * loss + distill.weight * softened
        return loss if self.hidden is None else loss + distill.hidden_weight * self.hidden.loss()


def _hidden_states(
    model: LoadedModel, teacher: LoadedModel | None, distill: Distill | None
) -> HiddenStates | None:
    if distill is None or teacher is None or distill.hidden_weight == 0:
        return None
    return HiddenStates(model.module, teacher.module, distill.hidden_layers)
