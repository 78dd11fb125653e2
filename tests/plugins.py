"""Packages with entry points, as pip would have laid them out in a folder of `sys.path`."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from tests.tiny import CLASSES, SIDE


def package(site: Path, module: str, code: str, *, distribution: str | None = None, **groups: str) -> Path:
    """`module` with `code` in `site`; `models="name:attribute"` and `tasks` are its entry points."""
    site.mkdir(parents=True, exist_ok=True)
    (site / f"{module}.py").write_text(code)
    name = distribution or module.replace("_", "-")
    info = site / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = []
    for group, entry in groups.items():
        key, _, attribute = entry.partition(":")
        lines += [f"[secateur.{group}]", f"{key} = {module}:{attribute}"]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


def model_folder(folder: Path, module: nn.Module, library: str, **config: object) -> Path:
    """A model folder of the plug-in `library`: images of one channel, where `config` says nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    stated = {"num_classes": CLASSES, "input_size": [1, SIDE, SIDE], "mean": [0.5], "std": [0.5], **config}
    (folder / "config.json").write_text(json.dumps({"library_name": library, **stated}))
    save_file(module.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
