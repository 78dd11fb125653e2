"""Fashion-MNIST whole, and small dense ResNets trained on it, one for each seed."""

import json
import sys
from pathlib import Path

import numpy as np
from transformers import ResNetConfig, ResNetForImageClassification

from deploy.demo.fashion_mnist import fetch, read
from schemas.fine_tune import FineTune, Sgd
from schemas.refs import DataRef
from tests.tables.places import DATA, ZOO
from tests.tables.prepare import trained

MEAN, STD = 0.2860, 0.3530
"""Of the pixels of the train split, divided by 255."""
RECIPE = FineTune(batch_size=128, optimizer=Sgd(lr=0.1, weight_decay=5e-4))
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
    """The model folder of one seed: trained on all 60,000 images on first use, five minutes of one core."""
    return trained(
        ZOO / f"fashion-resnet-{seed}",
        _untrained,
        data=fashion_data(),
        spec=DataRef(uri="s3://data/fashion-mnist/"),
        recipe=RECIPE,
        epochs=EPOCHS,
        seed=seed,
        least=LEAST_ACCURACY,
    )


def _untrained(folder: Path) -> None:
    _build().save_pretrained(folder)
    _write_preprocessor(folder)


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
    for each in map(int, sys.argv[1:] or ["0", "1", "2"]):
        print(dense_resnet(each))
