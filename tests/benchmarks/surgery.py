"""Dependency analysis, scores, plan and surgery at half of every width, against Torch-Pruning's pruner.

`python -m tests.benchmarks.surgery` compares CPU seconds on one thread, in alternating repeats;
`--memory` compares the growth of the peak of resident memory with the weights, one fresh process a case.
"""

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch_pruning
import torchvision
from torch import Tensor, nn

from schemas.allocation import UniformAllocation
from schemas.criteria import Magnitude
from schemas.method import Structured
from tests.benchmarks.bar import finish
from workers.pruning.structured.plan import choose_groups, plan
from workers.pruning.structured.scores import magnitude
from workers.pruning.structured.surgery import remove
from workers.pruning.structured.trace import trace

MODELS = ("resnet50", "vit_b_16", "densenet121")
MAX_RATIO = 1.0
MAX_SHARE_OF_WEIGHTS = 1.2
SHARE = 0.5
METHOD = Structured(
    units=("channels", "neurons", "heads", "hidden"),
    criterion=Magnitude(norm=1),
    allocation=UniformAllocation(keep_first_and_last=False),
    round_to=1,
)


def build(name: str) -> nn.Module:
    """With random weights, in eval mode."""
    torch.manual_seed(0)
    module: nn.Module = torchvision.models.get_model(name, weights=None)
    return module.eval()


def example(samples: int) -> Tensor:
    """Images [samples, 3, 224, 224]."""
    return torch.randn(samples, 3, 224, 224)


def ours(module: nn.Module) -> None:
    """What a job does in one round."""
    images = example(2)
    graph = trace(module, lambda part: part(images))
    chosen = choose_groups(graph, METHOD)
    removal = plan(chosen.groups, magnitude(module, chosen.groups, norm=1), METHOD, SHARE)
    remove(module, graph, removal)


def theirs(module: nn.Module) -> None:
    """The same as its own script for torchvision does it: build, then one step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = torch_pruning.pruner.MagnitudePruner(
            module,
            example(1),
            importance=torch_pruning.importance.MagnitudeImportance(p=1),
            pruning_ratio=SHARE,
            ignored_layers=[part for part in module.modules() if getattr(part, "out_features", 0) == 1000],
            **_attention_of(module),
        )
        pruner.step()


def _attention_of(module: nn.Module) -> dict[str, object]:
    """Fresh dictionaries: its defaults keep the modules of all earlier models alive."""
    options: dict[str, object] = {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}
    attentions = [part for part in module.modules() if isinstance(part, nn.MultiheadAttention)]
    if attentions:
        options["out_channel_groups"] = {part: part.num_heads for part in attentions}
    return options


ARMS: dict[str, Callable[[nn.Module], None]] = {"ours": ours, "torch-pruning": theirs}


def parameters(module: nn.Module) -> int:
    """Of the whole model."""
    return sum(one.numel() for one in module.parameters())


def ratio_of(name: str, repeats: int) -> float:
    """Median CPU time of ours over Torch-Pruning's; both must leave the same number of parameters."""
    taken: dict[str, list[float]] = {arm: [] for arm in ARMS}
    left: dict[str, int] = {}
    for repeat in range(repeats + 1):
        for arm in sorted(ARMS, reverse=bool(repeat % 2)):
            module = build(name)
            begin = time.process_time()
            ARMS[arm](module)
            taken[arm].append(time.process_time() - begin)
            left[arm] = parameters(module)
    assert len(set(left.values())) == 1, left
    mine, reference = (statistics.median(taken[arm][1:]) for arm in ARMS)  # the first warms up
    print(
        f"{name:14} ours {mine * 1000:7.0f} ms   torch-pruning {reference * 1000:7.0f} ms   ratio "
        f"{mine / reference:.2f}   parameters left {left['ours']:,}"
    )
    return mine / reference


def peak_growth(name: str, arm: str) -> float:
    """Growth of the peak of resident memory, as a share of the weights (proc(5): clear_refs, VmHWM)."""
    module = build(name)
    # imports and thread pools are not the cut's; both kinds of layers that the models have are in it
    ARMS[arm](torchvision.models.VisionTransformer(224, 32, 1, 2, 8, 16).eval())
    ARMS[arm](torchvision.models.densenet._densenet(4, (1, 1, 1, 1), 8, None, progress=False).eval())
    weights = sum(one.numel() * one.element_size() for one in module.parameters())
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    ARMS[arm](module)
    return (_status_bytes("VmHWM") - before) / weights


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def in_a_fresh_process(name: str, arm: str) -> float:
    """`peak_growth` in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.surgery", "--case", name, arm]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Run the comparison that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", nargs=2, metavar=("MODEL", "ARM"), help="one memory case, for --memory")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.case:
        print(peak_growth(*arguments.case))
    elif arguments.memory:
        grown = {name: {arm: in_a_fresh_process(name, arm) for arm in ARMS} for name in MODELS}
        for name, by_arm in grown.items():
            told = "   ".join(f"{arm} {share:5.2f} x weights" for arm, share in by_arm.items())
            print(f"{name:14} {told}")
        worst = max(by_arm["ours"] for by_arm in grown.values())
        finish("surgery_memory_share_of_weights", worst, MAX_SHARE_OF_WEIGHTS, at_least=False)
    else:
        slowest = max(ratio_of(name, arguments.repeats) for name in MODELS)
        finish("surgery_cpu_time_ratio", slowest, MAX_RATIO, at_least=False)


if __name__ == "__main__":
    main()
