"""SparseGPT and Wanda at 50 % on a Llama block, against the loops of their papers' code: CPU time and memory.

`python -m tests.benchmarks.second_order sparsegpt` (or wanda) runs each arm in a fresh process, one thread.
The bar is the larger of two shares: our CPU time of 1.1 times theirs, and the growth of our peak of resident
memory of 3 times the block's bytes. `--width` takes another width than 4096; the feed-forward layer follows.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from schemas.criteria import SparseGpt, Wanda
from schemas.method import Unstructured
from schemas.task import Task
from tests.benchmarks.bar import finish
from workers.data.bundle import Bundle, Split
from workers.models.loaded import LoadedModel
from workers.pruning.calibration import Calibration
from workers.pruning.cut import cut
from workers.pruning.layers import choose, prunable_layers

MAX_TIME, MAX_MEMORY = 1.1, 3.0
SHARE, BLOCK, DAMP = 0.5, 128, 0.01
SEQUENCES, BATCH = 16, 4
CRITERIA = {
    "sparsegpt": SparseGpt(samples=SEQUENCES, block=BLOCK, damp=DAMP),
    "wanda": Wanda(samples=SEQUENCES),
}


def calibration_of(width: int) -> Calibration:
    """One block with random weights, and sequences of random tokens: as many tokens as 2 times the width."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 43 // 16,  # 11,008 for 4,096
        num_hidden_layers=1,
        num_attention_heads=max(width // 128, 1),
        num_key_value_heads=max(width // 128, 1),
        vocab_size=2 * width,
        tie_word_embeddings=True,
    )
    module = LlamaForCausalLM(config).eval()
    tokens = torch.randint(0, config.vocab_size, (SEQUENCES, 2 * width // SEQUENCES))
    split = Split({"input_ids": tokens}, torch.zeros(SEQUENCES, dtype=torch.int64))

    def hidden(part: nn.Module, batch: object) -> Tensor:
        return part.model(**batch, use_cache=False).last_hidden_state

    model = LoadedModel(module, "transformers/Llama", Task.text_classification, 2, Path(), None, 1, hidden)
    return Calibration(model, Bundle(split, split, dict), 0, BATCH, lambda: None)


def block_of(calibration: Calibration) -> dict[str, nn.Linear]:
    """The seven layers of the block."""
    return {
        name: part
        for name, part in calibration.model.module.model.named_modules()
        if isinstance(part, nn.Linear)
    }


def ours(calibration: Calibration, criterion: str) -> None:
    """The product's own cut."""
    method = Unstructured(
        criterion=CRITERIA[criterion], exclude=("lm_head",) if _has_head(calibration) else ()
    )
    choice = choose(prunable_layers(calibration.model.module), method)
    cut(choice, method, SHARE, calibration=calibration, evaluate=None, movement=None, seed=0, number=1)


def _has_head(calibration: Calibration) -> bool:
    return any(layer.name == "lm_head" for layer in prunable_layers(calibration.model.module))


@contextmanager
def hooked(layers: dict[str, nn.Linear], add: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While this is open, the inputs of all layers are added: [rows, inputs]."""

    def hook(name: str) -> Callable[..., None]:
        return lambda _part, args, _out: add(name, args[0].reshape(-1, args[0].shape[-1]))

    handles = [part.register_forward_hook(hook(name)) for name, part in layers.items()]
    yield
    for handle in handles:
        handle.remove()


@torch.no_grad()
def papers(calibration: Calibration, criterion: str) -> None:
    """As the papers' code goes: all statistics of a block in one pass, each layer pruned, one more pass."""
    layers = block_of(calibration)
    seen = dict.fromkeys(layers, 0)
    if criterion == "sparsegpt":
        size = {name: (part.in_features, part.in_features) for name, part in layers.items()}
    else:
        size = {name: (part.in_features,) for name, part in layers.items()}
    totals = {name: torch.zeros(shape) for name, shape in size.items()}

    def add(name: str, rows: Tensor) -> None:
        totals[name] *= seen[name] / (seen[name] + BATCH)
        seen[name] += BATCH
        if criterion == "sparsegpt":
            scaled = (2 / seen[name]) ** 0.5 * rows.T.float()
            totals[name] += scaled.matmul(scaled.T)
        else:
            totals[name] += torch.norm(rows.T.float(), p=2, dim=1) ** 2 / seen[name]

    with hooked(layers, add):
        for batch, _ in calibration.batches(SEQUENCES):
            calibration.model.logits(batch)
    for name, part in layers.items():
        (papers_sparsegpt if criterion == "sparsegpt" else papers_wanda)(part, totals.pop(name))
    for batch, _ in calibration.batches(SEQUENCES):
        calibration.model.logits(batch)


def papers_wanda(layer: nn.Linear, norms: Tensor) -> None:
    """|W| times the root of the mean squared input, each row sorted."""
    metric = layer.weight.abs() * norms.reshape(1, -1).sqrt()
    gone = torch.zeros_like(metric) == 1
    order = torch.sort(metric, dim=-1, stable=True)[1][:, : int(metric.shape[1] * SHARE)]
    gone.scatter_(1, order, True)
    layer.weight[gone] = 0


def papers_sparsegpt(layer: nn.Linear, hessian: Tensor) -> None:
    """`fasterprune` without quantization."""
    weight = layer.weight.clone().float()
    dead = hessian.diagonal() == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    hessian.diagonal().add_(DAMP * hessian.diagonal().mean())
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    for start in range(0, weight.shape[1], BLOCK):
        stop = min(start + BLOCK, weight.shape[1])
        part = weight[:, start:stop].clone()
        solved, errors = torch.zeros_like(part), torch.zeros_like(part)
        inner = inverse[start:stop, start:stop]
        scores = part**2 / inner.diagonal().reshape(1, -1) ** 2
        gone = scores <= torch.sort(scores.flatten())[0][int(scores.numel() * SHARE)]
        for column in range(stop - start):
            kept = part[:, column].clone()
            kept[gone[:, column]] = 0
            solved[:, column] = kept
            error = (part[:, column] - kept) / inner[column, column]
            part[:, column:] -= error.unsqueeze(1).matmul(inner[column, column:].unsqueeze(0))
            errors[:, column] = error
        weight[:, start:stop] = solved
        weight[:, stop:] -= errors.matmul(inverse[start:stop, stop:])
    layer.weight.copy_(weight)


ARMS: dict[str, Callable[[Calibration, str], None]] = {"ours": ours, "papers": papers}


@torch.no_grad()
def measured(criterion: str, arm: str, width: int) -> dict[str, float]:
    """CPU seconds, growth of the peak of resident memory (proc(5)), and what became of the block."""
    torch.set_num_threads(1)
    ARMS[arm](calibration_of(64), criterion)  # imports are not the cut's
    calibration = calibration_of(width)
    layers = block_of(calibration)
    weights = sum(part.weight.numel() for part in layers.values())
    batch, _ = next(calibration.batches(SEQUENCES))
    before = calibration.model.logits(batch)
    Path("/proc/self/clear_refs").write_text("5")
    resident, begin = _status_bytes("VmRSS"), time.process_time()
    ARMS[arm](calibration, criterion)
    seconds, peak = time.process_time() - begin, _status_bytes("VmHWM")
    change = calibration.model.logits(batch) - before
    return {
        "seconds": seconds,
        "memory": (peak - resident) / (4 * weights),
        "zeros": sum(int((part.weight == 0).sum()) for part in layers.values()) / weights,
        "error": float(change.norm() / before.norm()),
    }


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def in_a_fresh_process(criterion: str, arm: str, width: int) -> dict[str, float]:
    """`measured` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.second_order",
        criterion,
        "--width",
        str(width),
        "--arm",
        arm,
    ]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def main() -> None:
    """Run the comparison that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("criterion", choices=sorted(CRITERIA))
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--arm", choices=sorted(ARMS), help="one arm alone, in this process")
    arguments = parser.parse_args()
    if arguments.arm:
        print(json.dumps(measured(arguments.criterion, arguments.arm, arguments.width)))
        return
    arms = {arm: in_a_fresh_process(arguments.criterion, arm, arguments.width) for arm in ARMS}
    for arm, found in arms.items():
        print(
            f"{arm:7} {found['seconds']:8.2f} CPU s   {found['memory']:5.2f} x the block   "
            f"zeros {found['zeros']:.4f}   error {found['error']:.4f}"
        )
    assert abs(arms["ours"]["zeros"] - arms["papers"]["zeros"]) < 1e-3, "the arms prune different shares"
    assert arms["ours"]["error"] < 1.05 * arms["papers"]["error"], "our block is further from the dense one"
    time_share = arms["ours"]["seconds"] / arms["papers"]["seconds"] / MAX_TIME
    memory_share = arms["ours"]["memory"] / MAX_MEMORY
    finish(
        f"{arguments.criterion}_of_allowed_time_or_memory", max(time_share, memory_share), 1.0, at_least=False
    )


if __name__ == "__main__":
    main()
