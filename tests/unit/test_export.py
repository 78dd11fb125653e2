"""From a module to an ONNX file with the same scores."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from schemas.task import Task
from workers import export
from workers.errors import PreflightError
from workers.export import export_onnx
from workers.models.loaded import LoadedModel

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def images(count: int, channels: int = 1, side: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"pixel_values": torch.randn(count, channels, side, side, generator=generator)}


def texts(count: int, length: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(count, length, dtype=torch.int64)
    mask[0, length // 2 :] = 0
    return {"input_ids": torch.randint(0, 50, (count, length), generator=generator), "attention_mask": mask}


def loaded(module: nn.Module, task: Task = Task.image_classification, call=None) -> LoadedModel:
    return LoadedModel(
        module=module.eval(),
        architecture=f"tests/{type(module).__name__}",
        task=task,
        classes=3,
        folder=Path("unused"),
        image_size=None,
        image_channels=1,
        call=call or (lambda module, batch: module(**batch).logits),
    )


def tiny_resnet() -> LoadedModel:
    torch.manual_seed(0)
    config = ResNetConfig(
        num_channels=1,
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        num_labels=3,
    )
    return loaded(ResNetForImageClassification(config))


def tiny_bert() -> LoadedModel:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, num_labels=3, **TINY)
    return loaded(BertForSequenceClassification(config), Task.text_classification)


def scores(path: Path, batch: dict[str, torch.Tensor]) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(["logits"], {name: value.numpy() for name, value in batch.items()})
    return output


class Linear(nn.Module):
    """The smallest classifier; subclasses misbehave."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, pixel_values):
        return self.layer(pixel_values.mean(dim=(1, 2)))


class Branching(Linear):
    def forward(self, pixel_values):
        if pixel_values.sum() > 0:
            return super().forward(pixel_values)
        return super().forward(-pixel_values)


class Different(Linear):
    def forward(self, pixel_values):
        return super().forward(pixel_values) + (1.0 if torch.compiler.is_exporting() else 0.0)


class NotANumber(Linear):
    def forward(self, pixel_values):
        return super().forward(pixel_values) * float("nan")


def linear(kind: type[Linear]) -> LoadedModel:
    return loaded(kind(), call=lambda module, batch: module(**batch))


def test_resnet_takes_any_batch_size_and_gives_the_same_scores(tmp_path):
    model = tiny_resnet()

    written = export_onnx(model, tmp_path / "model.onnx", images(4))

    assert written.files == (tmp_path / "model.onnx",)
    assert written.note is None
    assert written.check.matches
    assert written.check.max_abs_diff <= written.check.tolerance
    assert written.check.bytes == (tmp_path / "model.onnx").stat().st_size
    with torch.no_grad():
        expected = model.logits(images(7)).numpy()
    np.testing.assert_allclose(scores(tmp_path / "model.onnx", images(7)), expected, atol=1e-5)


def test_bert_takes_any_batch_size_and_length(tmp_path):
    model = tiny_bert()

    export_onnx(model, tmp_path / "model.onnx", texts(2, 12))

    with torch.no_grad():
        expected = model.logits(texts(5, 9)).numpy()
    np.testing.assert_allclose(scores(tmp_path / "model.onnx", texts(5, 9)), expected, atol=1e-5)
    inputs = onnx.load(tmp_path / "model.onnx").graph.input
    assert [one.name for one in inputs] == ["input_ids", "attention_mask"]
    assert [axis.dim_param for axis in inputs[0].type.tensor_type.shape.dim] == ["batch", "sequence"]


@pytest.mark.parametrize(
    "model",
    [
        loaded(ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, num_channels=3, **TINY))),
        loaded(
            VisionTransformer(16, 8, 1, 2, 16, 32, num_classes=3),
            call=lambda module, batch: module(batch["pixel_values"]),
        ),
    ],
    ids=["transformers", "torchvision"],
)
def test_vision_transformers_of_both_libraries_match(model, tmp_path):
    written = export_onnx(model, tmp_path / "model.onnx", images(2, channels=3))

    assert written.check.matches


def test_example_of_one_sample_still_frees_the_batch_axis(tmp_path):
    export_onnx(tiny_resnet(), tmp_path / "model.onnx", images(1))

    assert scores(tmp_path / "model.onnx", images(5)).shape == (5, 3)


def test_zeros_stay_zeros(tmp_path):
    model = linear(Linear)
    with torch.no_grad():
        model.module.layer.weight[:, ::2] = 0

    export_onnx(model, tmp_path / "model.onnx", images(2))

    stored = [onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "model.onnx").graph.initializer]
    weight = next(one for one in stored if one.size == 48)
    assert (weight == 0).sum() == 24


def test_file_tells_no_path_of_this_machine(tmp_path):
    export_onnx(tiny_resnet(), tmp_path / "model.onnx", images(2))

    content = (tmp_path / "model.onnx").read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content


def test_says_nothing_on_the_way(tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(tiny_bert(), tmp_path / "model.onnx", texts(2, 12))

    assert capfd.readouterr() == ("", "")


def test_module_is_left_as_it_was(tmp_path):
    model = tiny_resnet()
    model.module.train()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}

    export_onnx(model, tmp_path / "model.onnx", images(4))

    assert model.module.training
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


def test_weights_of_large_models_go_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "LARGEST_ONE_FILE", 1000)

    written = export_onnx(tiny_resnet(), tmp_path / "model.onnx", images(2))

    assert written.files == (tmp_path / "model.onnx", tmp_path / "model.onnx.data")
    assert written.check.bytes == sum(file.stat().st_size for file in written.files)
    assert "model.onnx.data" in written.note
    assert scores(tmp_path / "model.onnx", images(3)).shape == (3, 3)


def test_model_that_cannot_be_exported_says_why_and_what_to_do(tmp_path):
    with pytest.raises(
        PreflightError, match=r"tests/Branching cannot be exported to ONNX: .*data-dependent"
    ) as raised:
        export_onnx(linear(Branching), tmp_path / "model.onnx", images(2))

    assert "Leave 'onnx' out of export and set benchmark.backend: none." in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "difference"), [(Different, "differ by up to 1,"), (NotANumber, "up to nan")]
)
def test_refuses_a_file_that_gives_other_scores(kind, difference, tmp_path):
    with pytest.raises(PreflightError, match=difference):
        export_onnx(linear(kind), tmp_path / "model.onnx", images(2))
