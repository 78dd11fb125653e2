"""Rows 2 and 3 with Torch-Pruning's own pruner: `python torch_pruning.py order.json`.

Its MetaPruner with group magnitudes (L2), a global ranking and the step of its README: channels until
the multiply-accumulates are down to the goal, or heads and neurons by their share. Then the same epochs,
batches and optimizer as the job. Writes model.onnx beside the order and prints one JSON line.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
import torch.nn.functional as F  # noqa: N812
import torch_pruning as tp
import transformers
from torch import nn

STEPS = 40
"""The pruner's own steps towards the most that it may take, until the goal is met."""


def main(order):
    torch.manual_seed(order["seed"])
    is_text = order["task"] == "text-classification"
    make = (
        transformers.AutoModelForSequenceClassification
        if is_text
        else transformers.AutoModelForImageClassification
    )
    model = make.from_pretrained(order["model"], attn_implementation="eager")
    read = texts if is_text else images
    train, validation = read(order, "train"), read(order, "validation")
    example = {name: value[:2] for name, value in train[0].items()}
    dense = accuracy(model, *validation)
    macs_before, _ = tp.utils.count_ops_and_params(model, example)
    before = widths(model, order)
    shrink(model, order, example, macs_before)
    learn(model, *train, order, sum(order["epochs"]))
    macs, _ = tp.utils.count_ops_and_params(model, example)
    removed = 1 - macs / macs_before if order["goal"] == "macs" else 1 - widths(model, order) / before
    metric = accuracy(model, *validation)
    export(model, example, Path(order["out"]) / "model.onnx")
    return {
        "dense": dense,
        "metric": metric,
        "removed": removed,
        "nonzeros": sum(int((one != 0).sum()) for one in model.parameters()),
        "macs": int(macs) // len(example["pixel_values" if "pixel_values" in example else "input_ids"]),
        "versions": {"torch": torch.__version__, "torch-pruning": tp.__version__},
    }


def widths(model, order):
    """Heads or neurons in all."""
    if order["goal"] == "heads":
        return sum(layer.attention.self.num_attention_heads for layer in model.bert.encoder.layer)
    if order["goal"] == "neurons":
        return sum(layer.intermediate.dense.out_features for layer in model.bert.encoder.layer)
    return 1


def shrink(model, order, example, macs_before):
    share = order["shares"][-1]
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    common = {"importance": importance, "ignored_layers": [model.classifier], "num_heads": {}}
    if order["goal"] == "macs":
        pruner = tp.pruner.MetaPruner(
            model,
            example,
            global_pruning=True,
            pruning_ratio=0.95,
            max_pruning_ratio=0.9,
            iterative_steps=STEPS,
            round_to=order["method"]["round_to"],
            **common,
        )
        for _ in range(STEPS):
            pruner.step()
            if tp.utils.count_ops_and_params(model, example)[0] <= (1 - share) * macs_before:
                return
        raise SystemExit("the goal was not reached")
    if order["goal"] == "neurons":
        ratios = {layer.intermediate.dense: share for layer in model.bert.encoder.layer}
        pruner = tp.pruner.MetaPruner(
            model,
            example,
            pruning_ratio=0.0,
            pruning_ratio_dict=ratios,
            round_to=order["method"]["round_to"],
            **common,
        )
        pruner.step()
        return
    shrink_heads(model, example, share, common)


def shrink_heads(model, example, share, common):
    """Whole heads, as its example for BERT does; then each attention is told how many it has."""
    attentions = [layer.attention.self for layer in model.bert.encoder.layer]
    common["num_heads"] = {
        part: attention.num_attention_heads
        for attention in attentions
        for part in (attention.query, attention.key, attention.value)
    }
    ratios = dict.fromkeys(common["num_heads"], share)
    pruner = tp.pruner.MetaPruner(
        model,
        example,
        pruning_ratio=0.0,
        pruning_ratio_dict=ratios,
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio=share,
        **common,
    )
    pruner.step()
    for attention in attentions:
        attention.num_attention_heads = pruner.num_heads[attention.query]
        attention.all_head_size = attention.query.out_features


def images(order, split):
    """Normalized images by argument name, and labels; of the train split what the seed draws."""
    arrays = np.load(Path(order["data"]) / f"{split}.npz")
    stated = json.loads((Path(order["model"]) / "preprocessor_config.json").read_text())
    pixels = torch.from_numpy(arrays["image"].astype(np.float32))[:, None] / 255
    inputs = {"pixel_values": (pixels - stated["image_mean"][0]) / stated["image_std"][0]}
    return drawn(order, split, inputs, torch.from_numpy(arrays["label"].astype(np.int64)))


def texts(order, split):
    """Tokens by argument name, and labels."""
    table = pyarrow.parquet.read_table(Path(order["data"]) / f"{split}.parquet")
    tokenizer = transformers.AutoTokenizer.from_pretrained(order["model"])
    encoded = tokenizer(
        table["text"].to_pylist(),
        truncation=True,
        max_length=order["max_length"],
        padding=True,
        return_tensors="pt",
    )
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    return drawn(order, split, inputs, torch.tensor(table["label"].to_pylist()))


def drawn(order, split, inputs, labels):
    limit = order["train_samples"]
    if split != "train" or limit is None:
        return inputs, labels
    every = torch.randperm(len(labels), generator=torch.Generator().manual_seed(order["seed"]))
    chosen = every[:limit].sort().values
    return {name: value[chosen] for name, value in inputs.items()}, labels[chosen]


def learn(model, inputs, labels, order, epochs):
    size, settings = order["batch_size"], order["optimizer"]
    steps = epochs * (len(labels) // size)
    if settings["kind"] == "sgd":
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=settings["lr"],
            momentum=settings["momentum"],
            weight_decay=settings["weight_decay"],
            nesterov=True,
        )
    else:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"]
        )
    warmup = round(order["warmup"] * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, warmup, steps))
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(labels))[: steps // epochs * size].split(size):
            optimizer.zero_grad()
            logits = model(**{name: value[index] for name, value in inputs.items()}).logits
            F.cross_entropy(logits, labels[index]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), order["max_grad_norm"])
            optimizer.step()
            schedule.step()


def factor(step, warmup, steps):
    """A short rise, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.no_grad()
def accuracy(model, inputs, labels):
    model.eval()
    right = 0
    for index in torch.arange(len(labels)).split(256):
        logits = model(**{name: value[index] for name, value in inputs.items()}).logits
        right += int((logits.argmax(1) == labels[index]).sum())
    return right / len(labels)


class Scores(nn.Module):
    """Plain scores from plain tensors, for the export."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values):
        return self.model(**dict(zip(self.names, values, strict=True))).logits


def export(model, example, path):
    axes = {0: "batch", 1: "sequence"} if "input_ids" in example else {0: "batch"}
    torch.onnx.export(
        Scores(model.eval(), list(example)),
        tuple(example.values()),
        path,
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=list(example),
        output_names=["logits"],
        dynamic_shapes=(tuple(axes for _ in example),),
    )


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
