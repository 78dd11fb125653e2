"""A global L1 cut at 80 % against torch.nn.utils.prune.global_unstructured: CPU time, and memory.

`python -m tests.benchmarks.global_mask` compares CPU seconds, zeros written included, in alternating repeats;
`--memory` compares the growth of the peak of resident memory, one fresh process a case.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.nn.utils import prune

from schemas.method import Unstructured
from tests.benchmarks.bar import finish
from workers.pruning.cut import cut
from workers.pruning.layers import choose, prunable_layers

SPARSITY = 0.8
MIN_SPEEDUP = 20.0
MAX_BYTES_A_WEIGHT = 2.0


def bert_base_stack() -> nn.Module:
    """The 72 linear layers of BERT-base's encoder."""
    sizes = [(768, 768)] * 4 + [(768, 3072), (3072, 768)]
    return nn.Sequential(*[nn.Linear(*size) for _ in range(12) for size in sizes])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet50": torchvision.models.resnet50,
    "bert-base-stack": bert_base_stack,
}


def ours(model: nn.Module) -> float:
    """Cut in place; the threshold."""
    choice = choose(prunable_layers(model), Unstructured())
    result = cut(
        choice, Unstructured(), SPARSITY, calibration=None, evaluate=None, movement=None, seed=0, number=1
    )
    assert result.threshold is not None
    return result.threshold


def theirs(model: nn.Module) -> None:
    """The same with torch's own."""
    parameters = [(layer.module, "weight") for layer in prunable_layers(model)]
    prune.global_unstructured(parameters, pruning_method=prune.L1Unstructured, amount=SPARSITY)


CUTS: dict[str, Callable[[nn.Module], object]] = {"ours": ours, "torch": theirs}


def build(name: str) -> nn.Module:
    """The model with the same random weights every time."""
    torch.manual_seed(0)
    return MODELS[name]()


def largest_zeroed(name: str, pruned: nn.Module) -> tuple[float, int]:
    """The threshold that a cut amounts to: the largest dense weight that it zeroed; and the zeros."""
    largest, zeros = 0.0, 0
    for before, after in zip(prunable_layers(build(name)), _weights(pruned), strict=True):
        gone = after == 0
        zeros += int(gone.sum())
        if gone.any():
            largest = max(largest, float(before.weight.detach()[gone].abs().max()))
    return largest, zeros


def _weights(model: nn.Module) -> list[torch.Tensor]:
    kinds = (nn.Linear, nn.Conv2d)
    return [part.weight.detach() for part in model.modules() if isinstance(part, kinds)]


def cpu_seconds(name: str, arm: str) -> tuple[float, float, int]:
    """CPU seconds of one cut of a fresh model, its threshold and its zeros."""
    model = build(name)
    begin = time.process_time()
    CUTS[arm](model)
    seconds = time.process_time() - begin
    return seconds, *largest_zeroed(name, model)


def speedup_of(name: str, repeats: int) -> float:
    """Median CPU time of torch over ours; the two must agree on the threshold and the number of zeros."""
    taken: dict[str, list[float]] = {"ours": [], "torch": []}
    for _ in range(repeats):
        results = {arm: cpu_seconds(name, arm) for arm in CUTS}
        assert results["ours"][1:] == results["torch"][1:], results
        for arm, result in results.items():
            taken[arm].append(result[0])
    mine, reference = (statistics.median(taken[arm]) for arm in ("ours", "torch"))
    threshold, zeros = results["ours"][1:]
    print(
        f"{name:16} ours {mine * 1000:8.1f} ms   torch {reference * 1000:9.1f} ms   {reference / mine:6.1f}x"
        f"   threshold {threshold:.9f}   zeros {zeros}"
    )
    return reference / mine


def peak_growth(name: str, arm: str) -> float:
    """Bytes a weight by which the peak of resident memory grows in one cut (proc(5): clear_refs, VmHWM)."""
    model = build(name)
    CUTS[arm](nn.Linear(64, 64))  # imports and thread pools are not the cut's
    weights = sum(layer.weight.numel() for layer in prunable_layers(model))
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    CUTS[arm](model)
    return (_status_bytes("VmHWM") - before) / weights


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def in_a_fresh_process(name: str, arm: str) -> float:
    """`peak_growth` in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.global_mask", "--case", name, arm]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Run the comparison that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", nargs=2, metavar=("MODEL", "ARM"), help="one memory case, for --memory")
    arguments = parser.parse_args()
    if arguments.case:
        print(peak_growth(*arguments.case))
    elif arguments.memory:
        grown = {name: {arm: in_a_fresh_process(name, arm) for arm in CUTS} for name in MODELS}
        for name, by_arm in grown.items():
            print(f"{name:16} ours {by_arm['ours']:6.2f} B/weight   torch {by_arm['torch']:6.2f} B/weight")
        worst = max(by_arm["ours"] for by_arm in grown.values())
        finish("global_mask_memory_bytes_a_weight", worst, MAX_BYTES_A_WEIGHT, at_least=False)
    else:
        slowest = min(speedup_of(name, arguments.repeats) for name in MODELS)
        finish("global_mask_cpu_time_ratio", slowest, MIN_SPEEDUP, at_least=True)


if __name__ == "__main__":
    main()
