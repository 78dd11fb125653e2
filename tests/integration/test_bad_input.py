"""Each bad input ends in a failed job that names the cause and the remedy, before any fine-tuning."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from schemas.job import FailureClass
from service.store.blobs import Blobs
from tests import tiny
from tests.integration.conftest import Run, order_of, tiny_spec, upload
from workers.messages import FailedMessage


@dataclass
class Case:
    """`spoil` breaks the two folders; the job must fail with `failure`, its reason must hold `words`."""

    failure: FailureClass
    words: tuple[str, ...]
    spoil: Callable[[Path, Path], object] = lambda model, data: None
    spec: dict[str, Any] = field(default_factory=dict)


def weights(change: Callable[[dict], object]) -> Callable[[Path, Path], object]:
    def spoil(model: Path, data: Path) -> None:
        tensors = load_file(model / "model.safetensors")
        change(tensors)
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})

    return spoil


def first_conv(tensors: dict) -> str:
    return next(name for name, value in tensors.items() if value.ndim == 4)


def pickle_instead(model: Path, data: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def lying_header(model: Path, data: Path) -> None:
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")


def labels_up_to_nine(model: Path, data: Path) -> None:
    pixels, labels = tiny.images(64)
    np.savez(data / "train.npz", image=pixels, label=labels + 9)


def empty_validation(model: Path, data: Path) -> None:
    np.savez(data / "validation.npz", image=np.zeros((0, 16, 16), np.uint8), label=np.zeros(0, np.int64))


CASES = {
    "missing config": Case(
        FailureClass.model, ("config.json",), lambda model, data: (model / "config.json").unlink()
    ),
    "unknown architecture": Case(
        FailureClass.model,
        ("unknown architecture", "did you mean"),
        lambda model, data: tiny.edit_json(
            model / "config.json", architectures=["ResNotForImageClassification"], model_type="resnot"
        ),
    ),
    "weights of another shape": Case(
        FailureClass.model,
        ("resnet", "shape"),
        weights(
            lambda tensors: tensors.update({first_conv(tensors): tensors[first_conv(tensors)][:1].clone()})
        ),
    ),
    "missing weights": Case(
        FailureClass.model, ("missing",), weights(lambda tensors: tensors.pop(first_conv(tensors)))
    ),
    "NaN in weights": Case(
        FailureClass.model,
        ("NaN", "resnet"),
        weights(lambda tensors: tensors[first_conv(tensors)].view(-1)[:1].fill_(float("nan"))),
    ),
    "pickle": Case(
        FailureClass.model, ("pytorch_model.bin", "safetensors", "save_pretrained"), pickle_instead
    ),
    "lying header": Case(FailureClass.model, ("model.safetensors", "header"), lying_header),
    "labels outside the head": Case(FailureClass.data, ("label", "classes"), labels_up_to_nine),
    "empty split": Case(FailureClass.data, ("validation",), empty_validation),
    "missing split": Case(
        FailureClass.data, ("validation", "train.npz"), lambda model, data: (data / "validation.npz").unlink()
    ),
    "less than one batch": Case(
        FailureClass.data, ("fine_tune.batch_size",), spec={"fine_tune": {"batch_size": 4096}}
    ),
    "glob without a layer": Case(
        FailureClass.preflight, ("method.include", "decoder"), spec={"method": {"include": ["decoder.*"]}}
    ),
    "unreachable floor": Case(
        FailureClass.accuracy_floor, ("floor", "dense model"), spec={"floor": {"min_value": 1.0}}
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_fails_early_with_its_class_cause_and_remedy(
    name: str, blobs: Blobs, tmp_path: Path, run_order: Run
):
    case = CASES[name]
    model, data = tiny.resnet(tmp_path / "model"), tiny.image_npz(tmp_path / "data")
    case.spoil(model, data)

    spec = tiny_spec(upload(blobs, model, "zoo/m"), upload(blobs, data, "data/d"), **case.spec)
    link = run_order(order_of(spec))

    end = link.end()
    assert isinstance(end, FailedMessage), end
    assert end.failure_class is case.failure, end.reason
    for word in case.words:
        assert word in end.reason
    assert "Traceback" not in end.reason
    assert not [step for step in link.step_names() if step.startswith(("prune", "finetune"))]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://no-such-bucket-here/m/", ("no-such-bucket-here",)),
        ("s3://{bucket}/nothing/here/", ("nothing/here", "no files")),
    ],
)
def test_a_bucket_or_prefix_that_is_not_there_fails_as_storage(
    uri: str, words: tuple[str, ...], blobs: Blobs, tmp_path: Path, run_order: Run
):
    data = upload(blobs, tiny.image_npz(tmp_path / "data"), "data/d")

    end = run_order(order_of(tiny_spec(uri.format(bucket=blobs.bucket), data))).end()

    assert isinstance(end, FailedMessage)
    assert end.failure_class is FailureClass.storage
    for word in words:
        assert word in end.reason


def test_forbidden_storage_fails_as_storage(
    blobs: Blobs, tmp_path: Path, run_order: Run, monkeypatch: pytest.MonkeyPatch
):
    model = upload(blobs, tiny.resnet(tmp_path / "model"), "zoo/m")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    end = run_order(order_of(tiny_spec(model, model))).end()

    assert isinstance(end, FailedMessage)
    assert end.failure_class is FailureClass.storage


def test_a_loss_that_becomes_nan_fails_and_names_the_learning_rate(
    blobs: Blobs, tmp_path: Path, run_order: Run
):
    model = upload(blobs, tiny.vit(tmp_path / "model"), "zoo/m")
    data = upload(blobs, tiny.image_npz(tmp_path / "data"), "data/d")
    wild = {
        "epochs": 20,
        "batch_size": 32,
        "max_grad_norm": None,
        "optimizer": {"kind": "sgd", "lr": 10.0, "momentum": 0.99, "weight_decay": 1.0},
    }

    end = run_order(order_of(tiny_spec(model, data, fine_tune=wild, floor={"min_value": 0.0}))).end()

    assert isinstance(end, FailedMessage), end
    assert end.failure_class is FailureClass.model
    assert "fine_tune.optimizer.lr" in end.reason


def test_no_traceback_reaches_the_user_but_the_log_has_it(
    blobs: Blobs, tmp_path: Path, run_order: Run, capsys: pytest.CaptureFixture[str]
):
    data = upload(blobs, tiny.image_npz(tmp_path / "data"), "data/d")

    end = run_order(order_of(tiny_spec("s3://no-such-bucket-here/m/", data))).end()

    assert "Traceback" not in json.dumps(end.model_dump(mode="json"))
    assert "Traceback" in capsys.readouterr().out
