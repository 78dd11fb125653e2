"""A fine-tune step that keeps 80 % of the weights zero, against the bare loop that lets them grow back.

Pairs of steps on the same batch in random order, one thread, CPU time; the figure is the median over pairs.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
import torchvision
from torch import Tensor, nn

from schemas.fine_tune import FineTune
from schemas.method import Unstructured
from schemas.task import Task
from tests.benchmarks.bar import finish
from workers.models.loaded import LoadedModel
from workers.pruning.cut import cut, zeros_of
from workers.pruning.layers import Choice, choose, prunable_layers
from workers.training.optimizer import optimizer_for
from workers.training.trainer import Trainer

MAX_RATIO = 1.03
BATCH_SIZE = 64
IMAGE_SIZE = 64  # small images are the hard case: the fewer positions use a weight, the dearer its mask
CLASSES = 10


def pruned_model() -> tuple[nn.Module, Choice]:
    """A ResNet-18 cut to 80 %, in training mode."""
    torch.manual_seed(0)
    module = torchvision.models.resnet18(num_classes=CLASSES)
    choice = choose(prunable_layers(module), Unstructured())
    cut(choice, Unstructured(), 0.8, calibration=None, evaluate=None, movement=None, seed=0, number=1)
    return module.train(), choice


def masked_step(spec: FineTune, steps: int) -> tuple[Callable[[Tensor, Tensor], float], Choice]:
    """The product's own step, and the layers it keeps pruned."""
    module, choice = pruned_model()
    model = LoadedModel(
        module,
        "torchvision/resnet18",
        Task.image_classification,
        CLASSES,
        Path(),
        None,
        3,
        lambda part, batch: part(batch["pixel_values"]),
    )
    trainer = Trainer(model, choice.pruned, spec, None, steps)

    def step(images: Tensor, labels: Tensor) -> float:
        loss = float(trainer.step({"pixel_values": images}, labels))
        trainer.schedule.step()
        return loss

    return step, choice


def bare_step(spec: FineTune) -> Callable[[Tensor, Tensor], float]:
    """The loop as one writes it by hand, without masks."""
    module, _ = pruned_model()
    parameters = list(module.parameters())
    optimizer = optimizer_for(parameters, spec)
    assert spec.max_grad_norm is not None

    def step(images: Tensor, labels: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(module(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, spec.max_grad_norm)
        optimizer.step()
        return float(loss.detach())

    return step


def main() -> None:
    """Time the pairs and report the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    spec = FineTune(batch_size=BATCH_SIZE)
    masked, choice = masked_step(spec, pairs + 2)
    arms = {"masked": masked, "bare": bare_step(spec)}
    zeros = zeros_of(choice.pruned)
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(pairs + 2):
        images, labels = (
            torch.randn(BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE),
            torch.randint(CLASSES, (BATCH_SIZE,)),
        )
        for name in random.sample(sorted(arms), k=2):
            begin = time.process_time()
            arms[name](images, labels)
            taken[name].append(time.process_time() - begin)
    assert zeros_of(choice.pruned) >= zeros
    timed = {name: values[2:] for name, values in taken.items()}  # the first two warm up
    for name, values in timed.items():
        print(f"{name:7} step {statistics.median(values) * 1000:8.1f} ms CPU, median of {pairs}")
    ratios = [ours / bare for ours, bare in zip(timed["masked"], timed["bare"], strict=True)]
    finish("masked_step_ratio", statistics.median(ratios), MAX_RATIO, at_least=False)


if __name__ == "__main__":
    main()
