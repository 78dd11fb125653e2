"""`make tables`: accuracy of the demo's model on all of Fashion-MNIST after pruning in three ways.

It trains on 60,000 images and evaluates on 10,000, with the product's own functions and the recipe of
`iterative.yaml`. Each of its eight training runs goes through 60,000 images for all epochs of that recipe, so
it takes a while.
"""

import copy
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fashion_mnist import CACHE, fetch, read

from schemas.job_spec import JobSpec
from workers.data.bundle import Bundle
from workers.data.load import load_bundle
from workers.determinism import make_deterministic
from workers.evaluate import accuracy
from workers.fine_tune import fine_tune
from workers.models.load import load_model
from workers.models.loaded import LoadedModel
from workers.pruning.cut import cut
from workers.pruning.layers import choose, prunable_layers

HERE = Path(__file__).parent
SPARSITIES = (0.5, 0.8, 0.9, 0.95)


def main() -> None:
    """Print a Markdown table; progress goes to stderr."""
    make_deterministic(threads=os.cpu_count() or 1)
    recipe = yaml.safe_load((HERE / "iterative.yaml").read_text())
    spec = JobSpec.model_validate(recipe)
    dense = load_model(HERE / "model", spec.data.task)
    bundle = load_bundle(full_set(), spec.data, dense, seed=spec.seed)
    epochs = sum(spec.fine_tune.epochs_of(number, spec.rounds_in_all()) for number in _rounds(spec))
    dense_metric = evaluate(dense, bundle)
    print(f"| sparsity | dense | one-shot | one-shot, {epochs} epochs | iterative, {epochs} epochs |")
    print("|---|---|---|---|---|")
    for sparsity in SPARSITIES:
        one_shot = with_recipe(recipe, sparsity, {"kind": "one_shot"}, epochs=0, final_epochs=0)
        trained = with_recipe(recipe, sparsity, {"kind": "one_shot"}, epochs=epochs, final_epochs=0)
        iterative = with_recipe(recipe, sparsity, recipe["schedule"])
        figures = [dense_metric, *(run(each, dense, bundle) for each in (one_shot, trained, iterative))]
        cells = " | ".join(f"{figure:.2%}" for figure in figures)
        print(f"| {sparsity:.0%} | {cells} |", flush=True)


def full_set() -> Path:
    """A data folder with the whole set as arrays, made on first use."""
    folder = CACHE / "full"
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train"), ("validation", "test")):
        if not (folder / f"{split}.npz").is_file():
            images, labels = read(fetch(), name)
            np.savez(folder / f"{split}.part.npz", image=images, label=labels)
            (folder / f"{split}.part.npz").rename(folder / f"{split}.npz")
    return folder


def with_recipe(
    recipe: dict[str, Any], sparsity: float, schedule: dict[str, Any], **training: int
) -> JobSpec:
    """The recipe with another goal and schedule."""
    changes = {
        "goal": {"sparsity": sparsity},
        "schedule": schedule,
        "fine_tune": {**recipe["fine_tune"], **training},
    }
    return JobSpec.model_validate({**recipe, **changes})


def run(spec: JobSpec, dense: LoadedModel, bundle: Bundle) -> float:
    """All rounds of `spec` on a copy of the dense model, whatever the floor; the metric at the end."""
    started = time.monotonic()
    model = replace(dense, module=copy.deepcopy(dense.module))
    choice = choose(prunable_layers(model.module), spec.method)
    for number in _rounds(spec):
        cut(
            choice,
            spec.method.criterion,
            spec.method.allocation,
            spec.sparsity_after(number),
            seed=spec.seed,
            number=number,
        )
        fine_tune(
            model,
            bundle,
            choice,
            spec.fine_tune,
            epochs=spec.fine_tune.epochs_of(number, spec.rounds_in_all()),
            seed=spec.seed,
            number=number,
            teacher=dense if spec.fine_tune.distill else None,
            on_step=lambda _: None,
            evaluate_epoch=None,
        )
    metric = evaluate(model, bundle)
    seconds = time.monotonic() - started
    print(f"{spec.schedule.kind} {spec.goal.sparsity:.0%}: {metric:.4f}, {seconds:.0f} s", file=sys.stderr)
    return metric


def evaluate(model: LoadedModel, bundle: Bundle) -> float:
    """Accuracy on the validation split."""
    return accuracy(model, bundle, batch_size=500, on_batch=lambda done, of: None)


def _rounds(spec: JobSpec) -> range:
    return range(1, spec.rounds_in_all() + 1)


if __name__ == "__main__":
    main()
