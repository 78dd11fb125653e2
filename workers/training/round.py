"""The training of one round of a job: the pruner's masks, the teacher and the schedule put together."""

from collections.abc import Callable

from schemas.job_spec import JobSpec
from schemas.schedule import Gradual
from workers.data.bundle import Bundle
from workers.fine_tune import FineTuneResult, StepInfo, fine_tune
from workers.models.loaded import LoadedModel
from workers.pruning.pruner import Pruner
from workers.training.masks import MaskUpdates


def train_round(
    spec: JobSpec,
    model: LoadedModel,
    dense: LoadedModel,
    bundle: Bundle,
    pruner: Pruner,
    *,
    share: float,
    number: int,
    epochs: int,
    on_step: Callable[[StepInfo], None],
    evaluate_epoch: Callable[[], float] | None,
) -> FineTuneResult:
    """Train `model`, which `pruner` has cut, for `epochs`; a gradual schedule cuts to `share` on the way."""
    updates = None
    if isinstance(spec.schedule, Gradual):
        updates = MaskUpdates(spec.schedule, share, lambda to: pruner.prune(to, number))
    return fine_tune(
        model,
        bundle,
        pruner.choice,
        spec.fine_tune,
        epochs=epochs,
        seed=spec.seed,
        number=number,
        teacher=dense if spec.fine_tune.distill else None,
        on_step=on_step,
        evaluate_epoch=evaluate_epoch,
        mask_updates=updates,
        after_backward=pruner.after_backward,
    )
