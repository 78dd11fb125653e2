"""`torch.export` archives for tests: small models as torch itself writes them, and the same with changes."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torchvision.models.resnet import BasicBlock, ResNet
from transformers import AutoModelForSequenceClassification

from tests import tiny

CLASSES = tiny.CLASSES
SIDE = tiny.SIDE
Members = dict[str, bytes]
"""Content by name below the archive's root folder."""


class Cnn(nn.Module):
    """Two convolutions, a batch norm, dropout, two linear layers that share nothing."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding="same"),
        )
        self.hidden = nn.Linear(16, 16)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(16, CLASSES, bias=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        seen = self.features(pixel_values).relu().mean((2, 3))
        return self.head(self.drop(self.hidden(seen).relu()))


def images(count: int = 4, side: int = SIDE) -> dict[str, Tensor]:
    return {"pixel_values": torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))}


def words(count: int = 4, length: int = 9) -> dict[str, Tensor]:
    ids = torch.randint(4, 30, (count, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def exported(module: nn.Module, inputs: dict[str, Tensor], *, free: bool = True) -> ExportedProgram:
    """With free samples, and for texts free tokens."""
    axes = {
        name: {0: Dim.AUTO} | ({1: Dim.AUTO} if value.ndim == 2 else {}) for name, value in inputs.items()
    }
    return torch.export.export(module, (), inputs, dynamic_shapes=axes if free else None)


def resnet() -> ResNet:
    """torchvision's ResNet with two blocks."""
    torch.manual_seed(0)
    model = ResNet(BasicBlock, [1, 1, 0, 0], num_classes=CLASSES)
    model.fc = nn.Linear(128, CLASSES)
    model.layer3 = model.layer4 = nn.Identity()
    return model.eval()


def bert(folder: Path) -> nn.Module:
    """The tiny BERT, whose tokenizer is then in `folder`."""
    module = AutoModelForSequenceClassification.from_pretrained(tiny.bert(folder)).eval()
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    return module


def save(program: ExportedProgram, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path)
    return path


def changed(
    path: Path, to: Path, change: Callable[[Members], None], *, compression: int = zipfile.ZIP_STORED
) -> Path:
    """The archive at `path` with other members, each stored as torch stores them."""
    with zipfile.ZipFile(path) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(members)
    to.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(to, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"model/{name}", content)
    return to


def edit(members: Members, change: Callable[[dict[str, Any]], None], name: str = "models/model.json") -> None:
    """Change a member that is JSON."""
    value = json.loads(members[name])
    change(value)
    members[name] = json.dumps(value).encode()
