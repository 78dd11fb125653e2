"""Models of torchvision, described by a small config.json of ours."""

from pathlib import Path
from typing import Any

import torchvision

from schemas.task import Task
from workers.errors import ModelError
from workers.models.folder import did_you_mean, listed
from workers.models.limits import PRUNED, bounded
from workers.models.loaded import LoadedModel
from workers.models.preprocessing import read_preprocessing
from workers.models.torchvision_build import CLASSIFIERS, SEGMENTERS, Branch, Build
from workers.models.torchvision_detectors import DETECTORS
from workers.models.weights import fill, read_weights, stored_header
from workers.pruning.structured.reload import is_pruned, load_pruned

EXAMPLE = '{"library_name": "torchvision", "architecture": "resnet18", "num_classes": 10}'
REMEDY = "give the architecture and num_classes that these weights were trained with"
BRANCHES = {branch.task: branch for branch in (CLASSIFIERS, SEGMENTERS, DETECTORS)}


def load_torchvision(folder: Path, task: Task, config: dict[str, Any]) -> LoadedModel:
    """Build `config["architecture"]` and fill it with the folder's weights; ModelError if they disagree."""
    branch = BRANCHES.get(task)
    if branch is None:
        known = listed(f"'{one.value}'" for one in BRANCHES)
        raise ModelError(
            f"config.json: torchvision has no models for data.task '{task.value}': set data.task to one of "
            f"{known}"
        )
    name, classes = _architecture(config, branch), _classes(config, branch.fewest)
    size = read_preprocessing(folder, 3).size
    weights = read_weights(folder)
    build = Build(name, classes, weights, config, size)
    if is_pruned(config):
        with bounded(stored_header(folder), factor=PRUNED):
            module = load_pruned(folder, lambda: branch.build(build))
    else:
        with bounded(stored_header(folder)):
            module = branch.build(build)
        fill(module, weights, named=f"torchvision {name}", remedy=REMEDY)
    return LoadedModel(
        module=module.eval(),
        architecture=f"torchvision/{name}",
        task=task,
        classes=classes,
        folder=folder,
        image_size=size,
        image_channels=3,
        call=branch.call,
        plugin=branch.kind(module, build),
    )


def _architecture(config: dict[str, Any], branch: Branch) -> str:
    name = config.get("architecture")
    known = torchvision.models.list_models(module=branch.namespace)
    if isinstance(name, str) and name in known:
        return name
    for other in BRANCHES.values():
        if name in torchvision.models.list_models(module=other.namespace):
            raise ModelError(
                f"config.json: torchvision's {name} does {other.task.value}, but data.task is "
                f"'{branch.task.value}': set data.task to '{other.task.value}'"
            )
    raise ModelError(
        f"config.json: unknown architecture {name!r}: {did_you_mean(str(name), known)}"
        f"torchvision {torchvision.__version__} has {len(known)} {branch.what}; "
        f"a config.json looks like {EXAMPLE}"
    )


def _classes(config: dict[str, Any], fewest: int) -> int:
    classes = config.get("num_classes")
    if not isinstance(classes, int) or not fewest <= classes <= 1_000_000:
        raise ModelError(
            f"config.json: 'num_classes' is {classes!r}: give the number of classes, {fewest} or more"
        )
    return classes
