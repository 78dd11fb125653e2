"""One format, task and pattern: load, prune, train a step, export, and reload where our code is absent."""

import copy
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schemas.job_spec import JobSpec
from schemas.refs import DataRef
from tests import language, onnx_models, programs, scenes, small_tasks, tiny
from tests.matrix.reload import flat
from workers.data.bundle import Bundle
from workers.data.load import load_bundle
from workers.export import export_onnx
from workers.models.load import load_model
from workers.models.loaded import Batch, LoadedModel
from workers.models.save import save_model
from workers.onnx_model.module import OnnxModule
from workers.onnx_model.write import write_onnx
from workers.program.module import ProgramModule
from workers.program.write import write_program
from workers.pruning.calibration import Calibration
from workers.pruning.make import make_pruner
from workers.pruning.pruner import Pruner
from workers.pruning.structured.history import History
from workers.pruning.structured.reload import save_pruned
from workers.training.round import train_round

RELOAD = Path(__file__).with_name("reload.py")
BATCH = 4
TOLERANCE = 1e-5
"""Of the largest output, or of 1."""

PATTERNS: dict[str, dict[str, Any]] = {
    "unstructured": {"goal": {"sparsity": 0.5}, "method": {"pattern": "unstructured"}},
    "2:4": {"goal": {"sparsity": 0.5}, "method": {"pattern": "semi_structured"}},
    "structured": {"goal": {"params": 0.8}, "method": {"pattern": "structured", "round_to": 1}},
}


@dataclass(frozen=True)
class Format:
    """One kind of model folder with data for its task."""

    make_model: Callable[[Path], object]
    make_data: Callable[[Path], Path]
    data: DataRef
    library: str
    patterns: tuple[str, ...] = tuple(PATTERNS)


def _of(task: str, **fields: Any) -> DataRef:
    return small_tasks.data(task, **fields)


def _images(folder: Path) -> Path:
    return tiny.image_npz(folder, train=8, validation=8)


def _timm(folder: Path) -> Path:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(
        "test_vit2", pretrained=False, num_classes=tiny.CLASSES, in_chans=1, img_size=tiny.SIDE
    )
    timm.models.save_for_hf(
        model,
        folder,
        safe_serialization=True,
        model_config={"num_classes": tiny.CLASSES},
        model_args={"in_chans": 1, "img_size": tiny.SIDE},
    )
    return folder


def _language(folder: Path) -> None:
    language.llama(folder)


def _pt2(folder: Path) -> None:
    programs.save(programs.exported(programs.Cnn(), programs.images()), folder / "model.pt2")


def _tales(folder: Path) -> Path:
    words = " ".join(f"sport{number % 4} film{number % 3}" for number in range(120))
    return language.text_folder(folder, train=[words], validation=[words])


FORMATS: dict[str, Format] = {
    "transformers, image-classification": Format(
        tiny.resnet, _images, _of("image-classification"), "transformers"
    ),
    **{
        f"transformers, {name}": Format(model, data, ref, "transformers")
        for name, (model, data, ref) in small_tasks.CASES.items()
    },
    "transformers, causal-lm": Format(_language, _tales, _of("causal-lm", max_length=8), "transformers"),
    "transformers, segmentation": Format(
        scenes.segformer, scenes.mask_parquet, _of("segmentation"), "transformers"
    ),
    "transformers, detection": Format(scenes.yolos, scenes.box_parquet, _of("detection"), "transformers"),
    "timm, image-classification": Format(_timm, _images, _of("image-classification"), "timm"),
    "torchvision, image-classification": Format(
        lambda folder: tiny.torchvision_folder(folder, "squeezenet1_1"),
        lambda folder: tiny.image_parquet(folder, train=8, validation=8),
        _of("image-classification"),
        "torchvision",
    ),
    "torchvision, segmentation": Format(
        lambda folder: scenes.of_torchvision(folder, "lraspp_mobilenet_v3_large"),
        scenes.mask_parquet,
        _of("segmentation"),
        "torchvision",
    ),
    "pt2, image-classification": Format(_pt2, _images, _of("image-classification"), "torch.export"),
    "onnx, image-classification": Format(
        onnx_models.cnn, _images, _of("image-classification"), "onnxruntime", ("unstructured", "2:4")
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    name: str
    pattern: str
    reloaded_by: str
    difference: float
    allowed: float
    seconds: float
    failure: str | None = None

    @property
    def passed(self) -> bool:
        """The same outputs."""
        return self.failure is None and self.difference <= self.allowed


def run(name: str, pattern: str, folder: Path) -> Outcome:
    """The whole way of one case; what goes wrong is in the outcome."""
    began = time.monotonic()
    try:
        library, difference, allowed = _run(FORMATS[name], pattern, folder)
    except Exception as error:  # noqa: BLE001 - a table is made of all of them
        text = f"{type(error).__name__}: {str(error)[-400:]}"
        return Outcome(name, pattern, FORMATS[name].library, float("nan"), 0, time.monotonic() - began, text)
    return Outcome(name, pattern, library, difference, allowed, time.monotonic() - began)


def _run(form: Format, pattern: str, folder: Path) -> tuple[str, float, float]:
    form.make_model(folder / "model")
    learns = form.library != "onnxruntime"
    spec = JobSpec.model_validate(
        {
            "model": {"uri": "s3://zoo/model/" if learns else "s3://zoo/model.onnx"},
            "data": form.data.model_dump(mode="json"),
            "schedule": {"kind": "one_shot"},
            "fine_tune": {"epochs": 1 if learns else 0, "batch_size": BATCH},
            **PATTERNS[pattern],
        }
    )
    model = load_model(folder / "model", spec.data.task)
    bundle = load_bundle(form.make_data(folder / "data"), spec.data, model, seed=0, learns=learns)
    example, _ = next(bundle.batches(bundle.validation, 2, device=model.device))
    pruner = _prune_and_train(spec, model, bundle, example)
    out = folder / "out"
    library = _save(model, pruner, form.library, out, example)
    if form.library not in ("onnxruntime", "torch.export"):
        export_onnx(model, folder / "model.onnx", example)
    expected, found = _expected(model, example, library), _reloaded(model, library, out, example, folder)
    assert expected.keys() == found.keys(), (expected.keys(), found.keys())
    largest = max(float(np.abs(value).max()) for value in expected.values())
    difference = max(float(np.abs(value - found[key]).max()) for key, value in expected.items())
    return library, difference, TOLERANCE * max(1.0, largest)


def _prune_and_train(spec: JobSpec, model: LoadedModel, bundle: Bundle, example: Batch) -> Pruner:
    dense = replace(model, module=copy.deepcopy(model.module).requires_grad_(False)) if spec.trains else model
    pruner = make_pruner(spec, dense, Calibration(model, bundle, 0, BATCH, lambda: None), example, 1)
    pruner.prune(spec.removed_after(1), 1)
    if spec.trains:
        one_step = replace(bundle, train=bundle.train.first(BATCH))
        share = spec.removed_after(1)
        train_round(
            spec,
            model,
            dense,
            one_step,
            pruner,
            share=share,
            number=1,
            epochs=1,
            on_step=lambda _: None,
            evaluate_epoch=None,
        )
    pruned = pruner.pruned()
    assert max(pruned.sparsity, pruned.reached or 0.0) > 0.15
    model.module.eval()
    return pruner


def _save(model: LoadedModel, pruner: Pruner, library: str, out: Path, example: Batch) -> str:
    """Write the result; answers the library that reads it."""
    out.mkdir()
    surgery = pruner.surgery()
    if isinstance(model.module, OnnxModule):
        write_onnx(model.module, out / "model.onnx", largest=10**9)
    elif isinstance(model.module, ProgramModule):
        write_program(model, out / "model.pt2", example)
    elif surgery is None:
        save_model(model, out)
    else:
        save_pruned(model, History.model_validate_json(surgery), out, example)
        return "torch.export" if (out / "model.pt2").exists() else library
    return library


def _expected(model: LoadedModel, example: Batch, library: str) -> dict[str, np.ndarray]:
    with torch.no_grad():
        if library in ("torch.export", "onnxruntime"):
            return {"0": model.logits(example).numpy()}
        if library == "transformers":
            return flat(model.module(**example))
        return flat(model.module(example["pixel_values"]))


def _reloaded(
    model: LoadedModel, library: str, out: Path, example: Batch, folder: Path
) -> dict[str, np.ndarray]:
    inputs, outputs = folder / "inputs.npz", folder / "outputs.npz"
    np.savez(inputs, **{name: value.numpy() for name, value in example.items()})
    cls = type(model.module).__name__ if library == "transformers" else str(model.task.value)
    cls = "classification" if cls == "image-classification" else cls
    command = [sys.executable, "-P", str(RELOAD), str(out), library, cls, str(inputs), str(outputs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-300:])
    with np.load(outputs) as stored:
        return dict(stored)
