"""Makes the demo's model and data: trains the dense ResNet on all of Fashion-MNIST and writes a subset.

`python deploy/demo/make_assets.py` takes about four minutes on one core. The results are committed, so this
runs only when they shall change.
"""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from fashion_mnist import fetch, read
from PIL import Image
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification

HERE = Path(__file__).parent
SEED = 0
EPOCHS = 15
BATCH_SIZE = 128
LR = 0.1
TRAIN_SAMPLES = 10_000
VALIDATION_SAMPLES = 2_000
MEAN, STD = 0.2860, 0.3530
"""Of the pixels of the train split, divided by 255."""
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def main() -> None:
    """Train, write, and print what was reached."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the order of sums depends on the number of threads
    torch.use_deterministic_algorithms(True)
    folder = fetch()
    train, test = read(folder, "train"), read(folder, "test")
    model = build_model()
    train_model(model, *as_tensors(*train), as_tensors(*test))
    write_model(model, HERE / "model")
    write_parquet(*choose(*train, TRAIN_SAMPLES), HERE / "data" / "train.parquet")
    validation = choose(*test, VALIDATION_SAMPLES)
    write_parquet(*validation, HERE / "data" / "validation.parquet")
    print(f"all 10,000 test images: {accuracy(model, *as_tensors(*test)):.4f}")
    print(f"the demo's {VALIDATION_SAMPLES} of them: {accuracy(model, *as_tensors(*validation)):.4f}")


def build_model() -> ResNetForImageClassification:
    """A ResNet of three stages with one basic block each: 157 thousand parameters."""
    config = ResNetConfig(
        num_channels=1,
        embedding_size=32,
        hidden_sizes=[32, 64, 64],
        depths=[1, 1, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: number for number, name in enumerate(CLASSES)},
    )
    return ResNetForImageClassification(config)


def as_tensors(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Normalized float images [N,1,28,28] and int64 labels."""
    pixels = torch.from_numpy(images.astype(np.float32))[:, None] / 255
    return (pixels - MEAN) / STD, torch.from_numpy(labels.astype(np.int64))


def train_model(model: nn.Module, images: Tensor, labels: Tensor, test: tuple[Tensor, Tensor]) -> None:
    """SGD with one cycle of the learning rate; images are mirrored and shifted by up to two pixels."""
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(images) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=EPOCHS * steps, pct_start=0.2)
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for index in torch.randperm(len(images), generator=generator)[: steps * BATCH_SIZE].split(BATCH_SIZE):
            optimizer.zero_grad()
            logits = model(pixel_values=augment(images[index], generator)).logits
            nn.functional.cross_entropy(logits, labels[index]).backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch}/{EPOCHS}: {accuracy(model, *test):.4f}", flush=True)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images mirrored, and the whole batch shifted."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    down, right = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return torch.where(mirrored, images.flip(3), images).roll((down, right), (2, 3))


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1."""
    model.eval()
    predicted = torch.cat([model(pixel_values=batch).logits.argmax(1) for batch in images.split(500)])
    return float((predicted == labels).float().mean())


def choose(images: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` samples drawn with the seed."""
    index = np.random.default_rng(SEED).permutation(len(images))[:count]
    return images[index], labels[index]


def write_model(model: ResNetForImageClassification, folder: Path) -> None:
    """The hub layout: weights, config and preprocessing."""
    model.save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"height": 28, "width": 28},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [MEAN],
        "image_std": [STD],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")


def write_parquet(images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """Columns `image` (struct of PNG bytes and a path) and `label`, as the hub stores images."""
    path.parent.mkdir(exist_ok=True)
    cells = [{"bytes": png(image), "path": f"{number:05}.png"} for number, image in enumerate(images)]
    image_type = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table(
        {"image": pyarrow.array(cells, image_type), "label": pyarrow.array(labels.astype(np.int64))}
    )
    pyarrow.parquet.write_table(table, path, compression="zstd", row_group_size=1000)


def png(image: np.ndarray) -> bytes:
    """One image as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
