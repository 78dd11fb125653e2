"""Row 4 with LLM Compressor's one-shot modifiers: `python llm_compressor.py order.json`.

Magnitude, Wanda or SparseGPT on every Linear but the head, calibrated on the same number of blocks, drawn
from the same texts with the same seed; perplexity on the same blocks. Prints one JSON line.
"""

import json
import math
import sys
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet
import torch
import torch.nn.functional as F  # noqa: N812
import transformers
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier

ROWS = 8
"""Blocks of one evaluation batch."""


def main(order):
    model = transformers.AutoModelForCausalLM.from_pretrained(order["model"], dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(order["model"])
    train, validation = blocks(order, "train", tokenizer), blocks(order, "validation", tokenizer)
    dense = perplexity(model, validation)
    method = order["method"]
    criterion = method["criterion"]
    structure = f"{method['n']}:{method['m']}" if method["pattern"] == "semi_structured" else "0:0"
    if criterion["kind"] == "magnitude":
        magnitude(model, order["shares"][-1], structure)
    else:
        every = torch.randperm(len(train), generator=torch.Generator().manual_seed(order["seed"]))
        calibration = train[every[: criterion["samples"]]]
        make = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[criterion["kind"]]
        recipe = make(
            sparsity=order["shares"][-1],
            mask_structure=structure,
            targets=["Linear"],
            ignore=["re:.*lm_head"],
        )
        oneshot(
            model=model,
            processor=tokenizer,
            dataset=Dataset.from_dict(
                {"input_ids": calibration.tolist(), "attention_mask": torch.ones_like(calibration).tolist()}
            ),
            recipe=recipe,
            max_seq_length=order["max_length"],
            num_calibration_samples=len(calibration),
        )
    pruned = [module.weight for _, module in linears(model)]
    return {
        "dense": dense,
        "metric": perplexity(model, validation),
        "removed": sum(int((one == 0).sum()) for one in pruned) / sum(one.numel() for one in pruned),
        "nonzeros": sum(int((one != 0).sum()) for one in model.parameters()),
        "versions": {name: version(name) for name in ("llmcompressor", "torch", "transformers")},
    }


def linears(model):
    """Every Linear but the head."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]


@torch.no_grad()
def magnitude(model, share, structure):
    """The library ranks magnitudes by a schedule of its own over a training; at once it is this, by layer."""
    for _, module in linears(model):
        weight = module.weight
        if structure == "0:0":
            threshold = weight.abs().flatten().kthvalue(int(share * weight.numel())).values
            weight.mul_(weight.abs() > threshold)
        else:
            n, m = map(int, structure.split(":"))
            rows = weight.view(-1, m)
            rows.mul_(torch.zeros_like(rows).scatter_(1, rows.abs().topk(n, dim=1).indices, 1.0))


def blocks(order, split, tokenizer):
    """All texts, each with an end, as one stream in blocks [N, max_length]."""
    table = pyarrow.parquet.read_table(Path(order["data"]) / f"{split}.parquet")
    stream = []
    for text in table["text"].to_pylist():
        stream += tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    length = order["max_length"]
    return torch.tensor(stream[: len(stream) // length * length]).view(-1, length)


@torch.no_grad()
def perplexity(model, tokens):
    model.eval()
    total = 0.0
    for batch in tokens.split(ROWS):
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        total += float(F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum"))
    return math.exp(total / tokens[:, 1:].numel())


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
