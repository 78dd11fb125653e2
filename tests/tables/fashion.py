"""Fashion-MNIST whole, and small dense ResNets trained on it, one for each seed."""

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from deploy.demo.fashion_mnist import fetch, read
from schemas.fine_tune import FineTune, Sgd
from schemas.job_spec import DataRef, Task
from tests.tables.places import DATA, ZOO
from workers.data.load import load_bundle
from workers.determinism import make_deterministic, seed_everything
from workers.evaluate import accuracy
from workers.fine_tune import fine_tune
from workers.models.load import load_model
from workers.models.save import save_model
from workers.pruning.layers import Choice

MEAN, STD = 0.2860, 0.3530
"""Of the pixels of the train split, divided by 255."""
RECIPE = FineTune(batch_size=128, optimizer=Sgd(lr=0.1, weight_decay=5e-4), label_smoothing=0.0)
EPOCHS = 8
LEAST_ACCURACY = 0.90


def fashion_data() -> Path:
    """`train.npz` (60,000) and `validation.npz` (the 10,000 test images), made on first use."""
    folder = DATA / "fashion-mnist"
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train"), ("validation", "test")):
        if not (folder / f"{split}.npz").is_file():
            images, labels = read(fetch(), name)
            np.savez(folder / f"{split}.part.npz", image=images, label=labels)
            (folder / f"{split}.part.npz").rename(folder / f"{split}.npz")
    return folder


def dense_resnet(seed: int) -> Path:
    """The model folder of one seed: trained on all 60,000 images on first use, a few minutes of one core."""
    folder = ZOO / f"fashion-resnet-{seed}"
    if not (folder / "model.safetensors").is_file():
        _train(seed, folder)
    return folder


def _train(seed: int, folder: Path) -> None:
    started = time.process_time()
    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    make_deterministic(threads=1)  # the order of sums depends on the number of threads
    seed_everything(seed, number=0)
    _build().save_pretrained(draft)
    _write_preprocessor(draft)
    model = load_model(draft, Task.image_classification)
    bundle = load_bundle(fashion_data(), DataRef(uri="s3://data/fashion-mnist/"), model, seed=seed)
    fine_tune(
        model,
        bundle,
        Choice((), {}),
        RECIPE,
        epochs=EPOCHS,
        seed=seed,
        number=1,
        teacher=None,
        on_step=lambda _: None,
        evaluate_epoch=None,
    )
    reached = accuracy(model, bundle, batch_size=500, on_batch=lambda *_: None)
    seconds = time.process_time() - started
    print(
        f"dense ResNet, seed {seed}: {reached:.2%} after {seconds:.0f} s of CPU", file=sys.stderr, flush=True
    )
    if reached < LEAST_ACCURACY:
        sys.exit(f"the dense model of seed {seed} reaches {reached:.2%}, and the tables need 90 %")
    save_model(model, draft)
    draft.rename(folder)


def _build() -> ResNetForImageClassification:
    """Three stages of one basic block: 350 thousand parameters, 5.3 million multiply-accumulates. All widths
    are multiples of 16, the block in which ONNX Runtime computes convolutions here."""
    config = ResNetConfig(
        num_channels=1,
        embedding_size=48,
        hidden_sizes=[48, 96, 96],
        depths=[1, 1, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
        num_labels=10,
    )
    return ResNetForImageClassification(config)


def _write_preprocessor(folder: Path) -> None:
    stated = {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"height": 28, "width": 28},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [MEAN],
        "image_std": [STD],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(stated, indent=2) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in map(int, sys.argv[1:] or ["0", "1", "2"]):
        print(dense_resnet(each))
