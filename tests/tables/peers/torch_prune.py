"""Row 1 with `torch.nn.utils.prune` alone, as its tutorial does it: `python torch_prune.py order.json`.

One global ranking of |weight| over all convolutions and linear layers, cut to the same share after each round
as the job, with the same epochs, batches and optimizer. 2:4 has no function in that module: the two smallest
of each four inputs go, as a custom mask. Prints one JSON line.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import transformers
from torch import nn
from torch.nn.utils import prune


def main(order):
    torch.manual_seed(order["seed"])
    model = transformers.AutoModelForImageClassification.from_pretrained(order["model"])
    train, validation = load(order, "train"), load(order, "validation")
    dense = accuracy(model, *validation)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    before = 0.0
    for share, epochs in zip(order["shares"], order["epochs"], strict=True):
        cut(layers, order["method"], before, share)
        learn(model, *train, order, epochs)
        before = share
    for layer in layers:
        if prune.is_pruned(layer):
            prune.remove(layer, "weight")
    pruned = [layer.weight for layer in layers if not skipped(layer, order["method"])]
    return {
        "dense": dense,
        "metric": accuracy(model, *validation),
        "removed": sum(int((one == 0).sum()) for one in pruned) / sum(one.numel() for one in pruned),
        "nonzeros": sum(int((one != 0).sum()) for one in model.parameters()),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def load(order, split):
    """Normalized images [N,1,H,W] and labels; of the train split the samples that the seed draws."""
    arrays = np.load(Path(order["data"]) / f"{split}.npz")
    stated = json.loads((Path(order["model"]) / "preprocessor_config.json").read_text())
    pixels = torch.from_numpy(arrays["image"].astype(np.float32))[:, None] / 255
    images = (pixels - stated["image_mean"][0]) / stated["image_std"][0]
    labels = torch.from_numpy(arrays["label"].astype(np.int64))
    limit = order["train_samples"]
    if split == "train" and limit is not None:
        drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(order["seed"]))
        chosen = drawn[:limit].sort().values
        images, labels = images[chosen], labels[chosen]
    return images, labels


def skipped(layer, method):
    """What 2:4 cannot be made in stays dense."""
    return method["pattern"] == "semi_structured" and layer.weight.shape[1] % method["m"] != 0


def cut(layers, method, before, share):
    """From `before` to `share` of zeros in all."""
    if method["pattern"] == "unstructured":
        amount = (share - before) / (1 - before)  # of what is left: that is how this module counts
        pairs = [(layer, "weight") for layer in layers]
        prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=amount)
        return
    for layer in layers:
        if not skipped(layer, method):
            prune.custom_from_mask(
                layer, "weight", two_of_four(layer.weight.detach(), method["n"], method["m"])
            )


def two_of_four(weight, n, m):
    """1 for the n largest of each m inputs."""
    grouped = weight.abs().movedim(1, -1)
    blocks = grouped.reshape(-1, m)
    mask = torch.zeros_like(blocks).scatter_(1, blocks.topk(n, dim=1).indices, 1.0)
    return mask.reshape(grouped.shape).movedim(-1, 1)


def learn(model, images, labels, order, epochs):
    size, settings = order["batch_size"], order["optimizer"]
    steps = epochs * (len(labels) // size)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings["lr"],
        momentum=settings["momentum"],
        weight_decay=settings["weight_decay"],
        nesterov=True,
    )
    warmup = round(order["warmup"] * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, warmup, steps))
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(labels))[: steps // epochs * size].split(size):
            optimizer.zero_grad()
            F.cross_entropy(model(pixel_values=images[index]).logits, labels[index]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), order["max_grad_norm"])
            optimizer.step()
            schedule.step()


def factor(step, warmup, steps):
    """A short rise, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.no_grad()
def accuracy(model, images, labels):
    model.eval()
    found = torch.cat([model(pixel_values=batch).logits.argmax(1) for batch in images.split(500)])
    return float((found == labels).float().mean())


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
