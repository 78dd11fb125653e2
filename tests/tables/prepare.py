"""What the preparation of several models shares: train with the product's own function, check, keep."""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from schemas.fine_tune import FineTune
from schemas.refs import DataRef
from workers.data.load import load_bundle
from workers.determinism import make_deterministic, seed_everything
from workers.evaluate import metric_of
from workers.fine_tune import fine_tune
from workers.models.load import load_model
from workers.models.save import save_model
from workers.pruning.layers import Choice


def trained(
    folder: Path,
    build: Callable[[Path], None],
    *,
    data: Path,
    spec: DataRef,
    recipe: FineTune,
    epochs: int,
    seed: int,
    least: float,
) -> Path:
    """`folder`, made on first use: `build` writes an untrained model, which then learns `data`.

    Exits where it reaches less than `least` on the validation split.
    """
    if folder.is_dir():
        return folder
    started = time.process_time()
    make_deterministic(threads=1)  # the order of sums depends on the number of threads
    seed_everything(seed, number=0)
    untrained = folder.with_name(folder.name + ".untrained")
    shutil.rmtree(untrained, ignore_errors=True)
    build(untrained)
    model = load_model(untrained, spec.task)
    bundle = load_bundle(data, spec, model, seed=seed)
    fine_tune(
        model,
        bundle,
        Choice((), {}),
        recipe,
        epochs=epochs,
        seed=seed,
        number=1,
        teacher=None,
        on_step=lambda _: None,
        evaluate_epoch=None,
    )
    reached = metric_of(model, bundle, batch_size=256, on_batch=lambda *_: None)
    seconds = time.process_time() - started
    print(f"{folder.name}: {reached:.2%} after {seconds:.0f} s of CPU", file=sys.stderr, flush=True)
    if reached < least:
        sys.exit(f"{folder.name} reaches {reached:.2%}, and the tables need {least:.0%}")
    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    save_model(model, draft)
    draft.rename(folder)
    shutil.rmtree(untrained)
    return folder
