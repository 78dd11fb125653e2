"""Tiny model folders and data sets that they can learn in seconds, for every test.

Models have a few thousand weights and `CLASSES` classes; ResNet and ViT take one channel of `SIDE` x `SIDE`.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

DEMO = Path(__file__).parents[1] / "deploy" / "demo"
CLASSES = 4
SIDE = 16
WORDS = [f"{topic}{number}" for topic in ("sport", "money", "music", "film") for number in range(5)]
FILLERS = [f"filler{number}" for number in range(10)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def resnet(folder: Path, *, seed: int = 0, channels: int = 1, **config: Any) -> Path:
    """A transformers ResNet with about 6,000 weights, and a preprocessor that states its size."""
    torch.manual_seed(seed)
    options = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    named = {"num_labels": CLASSES, **options, **config}
    model = ResNetForImageClassification(ResNetConfig(num_channels=channels, **named))
    model.save_pretrained(folder)
    preprocessor(folder, channels)
    return folder


def vit(folder: Path, *, seed: int = 0) -> Path:
    """A ViT with 4 patches, 2 layers and about 5,000 weights."""
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=SIDE,
        patch_size=SIDE // 2,
        num_channels=1,
        num_labels=CLASSES,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    preprocessor(folder, 1)
    return folder


def bert(folder: Path, *, seed: int = 0) -> Path:
    """A BERT sequence classifier with 2 layers and about 6,000 weights, with its word-level tokenizer."""
    torch.manual_seed(seed)
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS, *FILLERS])}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        num_labels=CLASSES,
        pad_token_id=0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer(vocabulary).save_pretrained(folder)
    return folder


def tokenizer(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    """Words between spaces; `[CLS]` before and `[SEP]` after."""
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    )


def torchvision_folder(
    folder: Path, architecture: str = "squeezenet1_1", *, seed: int = 0, side: int = 64
) -> Path:
    """A torchvision classifier (squeezenet1_1: 0.7 million weights; resnet18: 11) of three channels."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = torchvision.models.get_model(architecture, weights=None, num_classes=CLASSES)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "library_name": "torchvision",
        "architecture": architecture,
        "num_classes": CLASSES,
        "input_size": [3, side, side],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def preprocessor(folder: Path, channels: int, **changes: Any) -> None:
    """`preprocessor_config.json` for images of `SIDE` x `SIDE`."""
    stated = {
        "size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.5] * channels,
        "image_std": [0.5] * channels,
        **changes,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))


def edit_json(path: Path, **changes: Any) -> None:
    """Set fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def images(samples: int, *, seed: int = 0, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Noise [N,side,side] uint8 with one bright quadrant, and its number: a ResNet learns it in one epoch."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, samples)
    pixels = random.integers(0, 160, (samples, side, side))
    half = side // 2
    for image, label in zip(pixels, labels, strict=True):
        top, left = half * (label // 2), half * (label % 2)
        image[top : top + half, left : left + half] += 90
    return pixels.astype(np.uint8), labels.astype(np.int64)


def texts(samples: int, *, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Three words of one topic among fillers, and the topic's number."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, samples).astype(np.int64)
    lines = []
    for label in labels:
        topic = random.choice(WORDS[label * 5 : label * 5 + 5], 3)
        words = [*topic, *random.choice(FILLERS, int(random.integers(2, 7)))]
        lines.append(" ".join(random.permutation(words)))
    return lines, labels


def image_parquet(folder: Path, *, train: int = 256, validation: int = 128, side: int = SIDE) -> Path:
    """`train.parquet` and `validation.parquet` with PNG images, as the hub stores them."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, samples, seed in (("train", train, 1), ("validation", validation, 2)):
        pixels, labels = images(samples, seed=seed, side=side)
        cells = [{"bytes": png(image), "path": f"{row}.png"} for row, image in enumerate(pixels)]
        write_parquet(folder / f"{split}.parquet", image=cells, label=labels)
    return folder


def image_npz(folder: Path, *, train: int = 256, validation: int = 128, side: int = SIDE) -> Path:
    """`train.npz` and `validation.npz` with the arrays `image` and `label`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, samples, seed in (("train", train, 1), ("validation", validation, 2)):
        pixels, labels = images(samples, seed=seed, side=side)
        np.savez(folder / f"{split}.npz", image=pixels, label=labels)
    return folder


def text_parquet(folder: Path, *, train: int = 256, validation: int = 128) -> Path:
    """`train.parquet` and `validation.parquet` with the columns `text` and `label`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, samples, seed in (("train", train, 1), ("validation", validation, 2)):
        lines, labels = texts(samples, seed=seed)
        write_parquet(folder / f"{split}.parquet", text=lines, label=labels)
    return folder


def write_parquet(path: Path, **columns: Any) -> None:
    """One parquet file from columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=100)


def png(pixels: np.ndarray) -> bytes:
    """One PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
