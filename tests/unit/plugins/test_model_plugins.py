"""Architectures from packages of an operator: found by name, built, refused with package and reason."""

from pathlib import Path

import pytest
import torch
from torch import nn

from schemas.task import Task
from tests import tiny
from tests.plugins import model_folder, package
from workers.data.text import vocabulary_size
from workers.errors import ModelError
from workers.models.load import load_model
from workers.models.save import save_model

IMAGES, TEXTS = Task.image_classification, Task.text_classification
FLAT = f"nn.Sequential(nn.Flatten(), nn.Linear({tiny.SIDE**2}, config['num_classes']))"
FORWARDS = {
    "tensor": "return self.layer(x)",
    "dict": "return {'logits': self.layer(x)}",
    "object": "return SimpleNamespace(logits=self.layer(x))",
    "tuple": "return self.layer(x), None",
}
TIED = """
from torch import nn
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.table.weight
    def forward(self, input_ids):
        return self.head(self.table(input_ids))
def build(config):
    return Tied()
"""


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(tiny.SIDE**2, tiny.CLASSES))


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str, **fields: str) -> None:
    site = package(tmp_path / module, module, code, **{"models": "my-net:build", **fields})
    monkeypatch.syspath_prepend(site)


def refusal(folder: Path, task: Task = IMAGES) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(folder, task)
    return str(caught.value)


def test_its_function_builds_what_the_folders_weights_fill(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "ours", f"from torch import nn\ndef build(config): return {FLAT}")
    net = flat()
    folder = model_folder(tmp_path / "m", net.half(), "my-net")

    model = load_model(folder, IMAGES)

    assert (model.architecture, model.classes, model.image_size) == ("my-net/Sequential", 4, (16, 16))
    assert not model.module.training
    pixels = torch.rand(2, 1, tiny.SIDE, tiny.SIDE)
    assert torch.equal(model.logits({"pixel_values": pixels}), net.float()(pixels))


@pytest.mark.parametrize("answer", FORWARDS)
def test_scores_are_a_tensor_or_logits_or_what_a_tuple_begins_with(answer, tmp_path, monkeypatch):
    code = f"""
from types import SimpleNamespace
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Flatten(), nn.Linear({tiny.SIDE**2}, 4))
    def forward(self, x): {FORWARDS[answer]}
def build(config): return Net()
"""
    install(tmp_path, monkeypatch, f"answers_{answer}", code)
    holder = nn.Module()
    holder.layer = flat()

    model = load_model(model_folder(tmp_path / "m", holder, "my-net"), IMAGES)

    assert model.logits({"pixel_values": torch.rand(2, 1, tiny.SIDE, tiny.SIDE)}).shape == (2, 4)


def test_tied_weights_are_saved_once_and_load_again(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "tied", TIED)
    holder = nn.Module()
    holder.table = nn.Embedding(9, 4)
    folder = model_folder(tmp_path / "m", holder, "my-net", num_classes=9, input_size=None)
    ids = {"input_ids": torch.arange(6).view(2, 3)}

    model = load_model(folder, Task.causal_lm)
    save_model(model, tmp_path / "out")
    again = load_model(tmp_path / "out", Task.causal_lm)

    assert torch.equal(again.logits(ids), model.logits(ids))
    assert vocabulary_size(again) == 9


@pytest.mark.parametrize(
    ("module", "code", "says"),
    [
        (
            "broken_import",
            "import nothing_like_it",
            ["broken-import 1.2 cannot be imported", "nothing_like_it"],
        ),
        ("leaves", "raise SystemExit(3)", ["leaves 1.2 cannot be imported", "SystemExit: 3"]),
        ("no_build", "", ["no-build 1.2 cannot be imported", "AttributeError"]),
        (
            "raises",
            "def build(config): return config['depth']",
            ["raises 1.2 cannot build", "KeyError: 'depth'"],
        ),
        ("not_module", "def build(config): return 3", ["not-module 1.2", "it returned int"]),
        (
            "other_arguments",
            "from torch import nn\n"
            "def build(config): return B(nn.Flatten(), nn.Linear(256, 4))\nclass B(nn.Sequential):\n"
            " def forward(self): pass",
            ["other-arguments 1.2 does not take a batch", "too many positional"],
        ),
        (
            "other_shape",
            "from torch import nn\ndef build(config): return nn.Linear(2, 2)",
            ["plug-in 'my-net' of other-shape 1.2", "unexpected 1.bias"],
        ),
        (
            "huge",
            "from torch import nn\ndef build(config): return nn.Linear(10**5, 10**4, device='meta')",
            ["far larger model than the weights"],
        ),
    ],
)
def test_a_plugin_that_fails_is_refused_with_its_package_and_the_reason(
    module, code, says, tmp_path, monkeypatch
):
    install(tmp_path, monkeypatch, module, code)

    told = refusal(model_folder(tmp_path / "m", flat(), "my-net"))

    assert all(part in told for part in says), told


def test_a_model_that_gives_no_scores_names_the_package(tmp_path, monkeypatch):
    code = "from torch import nn\nclass N(nn.Linear):\n def forward(self, x): return {}\n"
    install(tmp_path, monkeypatch, "no_scores", code + "def build(config): return N(2, 2)")
    model = load_model(model_folder(tmp_path / "m", nn.Linear(2, 2), "my-net"), IMAGES)

    with pytest.raises(ModelError, match=r"of no-scores 1\.2 gives no scores"):
        model.logits({"pixel_values": torch.rand(2, 1, 16, 16)})


def test_an_unknown_library_is_told_what_there_is(tmp_path, monkeypatch):
    folder = model_folder(tmp_path / "m", flat(), "my-nett")
    assert "this worker has no plug-in of secateur.models" in refusal(folder)

    install(tmp_path, monkeypatch, "never_imported", "raise RuntimeError")

    told = refusal(folder)
    assert "'library_name' is 'my-nett': use 'transformers', the default, 'timm', or 'torchvision'" in told
    assert "this worker has the plug-ins 'my-net'" in told


def test_a_name_in_a_config_imports_nothing(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "secret", "raise AssertionError('imported')")

    for name in ("secret", "secret:build", "os", "../secret", ["secret"], None):
        told = refusal(model_folder(tmp_path / "m", flat(), name))
        assert "'library_name' is" in told, told


def test_two_packages_of_one_name_are_refused(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "first_one", "build = None")
    install(tmp_path, monkeypatch, "second_one", "build = None")

    told = refusal(model_folder(tmp_path / "m", flat(), "my-net"))

    assert "is in first-one 1.2 and in second-one 1.2" in told


@pytest.mark.parametrize(
    ("config", "task", "says"),
    [
        ({"num_classes": "4"}, IMAGES, "'num_classes' is '4'"),
        ({"input_size": [1, 16]}, IMAGES, "'input_size' is [1, 16]"),
        ({"input_size": None}, IMAGES, "no 'input_size'"),
        ({}, TEXTS, "has 'input_size', so it takes images"),
        ({}, Task.detection, "give a model of transformers"),
    ],
)
def test_a_config_that_does_not_say_what_the_task_needs_is_refused(config, task, says, tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "fine", f"from torch import nn\ndef build(config): return {FLAT}")

    assert says in refusal(model_folder(tmp_path / "m", flat(), "my-net", **config), task)
