"""A `torch.export` archive becomes a module with PyTorch's layers, which gives what torch's loader gives."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.export import Dim

from schemas.task import Task
from tests import programs
from workers.errors import ModelError
from workers.models.load import load_model
from workers.models.loaded import LoadedModel
from workers.models.preprocessing import read_preprocessing
from workers.models.save import save_model
from workers.program.module import ProgramModule
from workers.pruning.layers import prunable_layers

IMAGES, TEXT = Task.image_classification, Task.text_classification


@pytest.fixture(scope="module")
def cnn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cnn")
    programs.save(programs.exported(programs.Cnn().eval(), programs.images()), folder / "model.pt2")
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    programs.save(programs.exported(programs.bert(folder), programs.words()), folder / "model.pt2")
    return folder


def layers_of(model: LoadedModel) -> dict[str, str]:
    return {layer.name: layer.kind for layer in prunable_layers(model.module)}


def test_gives_what_the_original_gives(cnn: Path):
    model = load_model(cnn, IMAGES)

    assert isinstance(model.module, ProgramModule)
    assert model.architecture == "torch.export/model"
    assert (model.classes, model.image_size, model.image_channels) == (4, (16, 16), 3)
    for count in (1, 2, 7):
        with torch.no_grad():
            scores, wanted = (
                model.logits(programs.images(count)),
                programs.Cnn().eval()(**programs.images(count)),
            )
        assert torch.equal(scores, wanted)


def test_calls_become_layers_under_the_names_that_they_had(cnn: Path):
    model, original = load_model(cnn, IMAGES), programs.Cnn()

    assert layers_of(model) == {
        "features.0": "Conv2d",
        "features.3": "Conv2d",
        "hidden": "Linear",
        "head": "Linear",
    }
    assert isinstance(model.module.get_submodule("features.1"), nn.BatchNorm2d)
    assert model.module.state_dict().keys() == original.state_dict().keys()
    assert [part.p for part in model.module.modules() if isinstance(part, nn.Dropout)] == [0.2]


def test_a_copy_is_the_same_and_shares_nothing(cnn: Path):
    model = load_model(cnn, IMAGES)
    twin = copy.deepcopy(model.module)

    nn.init.zeros_(model.module.get_submodule("head").weight)

    assert twin(**programs.images()).abs().sum() > 0
    assert twin.inputs == model.module.inputs


def test_an_archive_that_was_exported_for_training_trains_and_is_judged_in_evaluation(tmp_path: Path):
    original = programs.Cnn().train()
    programs.save(programs.exported(original, programs.images()), tmp_path / "model.pt2")

    model = load_model(tmp_path, IMAGES)

    with torch.no_grad():
        assert torch.equal(model.logits(programs.images()), original.eval()(**programs.images()))
    model.module.train()
    before = model.module.get_buffer("features.1.running_mean").clone()
    model.logits(programs.images())
    assert not torch.equal(model.module.get_buffer("features.1.running_mean"), before)


def test_a_program_of_core_operators_has_linear_layers_and_convolutions_too(tmp_path: Path):
    program = programs.exported(programs.Cnn().eval(), programs.images()).run_decompositions()
    programs.save(program, tmp_path / "model.pt2")

    model = load_model(tmp_path, IMAGES)

    assert list(layers_of(model)) == ["features.0", "features.3", "hidden", "head"]
    assert "batch norms keep their statistics" in " ".join(model.notes)
    with torch.no_grad():
        wanted = programs.Cnn().eval()(**programs.images())
        assert torch.allclose(model.logits(programs.images()), wanted, atol=1e-6)


def test_a_text_model_takes_any_length_up_to_its_own(bert: Path, tmp_path: Path):
    model, original = load_model(bert, TEXT), programs.bert(tmp_path / "original")

    assert len(layers_of(model)) == 14
    assert model.module.config.max_position_embeddings == 32
    assert model.module.get_input_embeddings().weight.shape == (34, 16)
    for length in (2, 9, 32):
        batch = programs.words(3, length)
        with torch.no_grad():
            assert torch.allclose(model.logits(batch), original(**batch).logits, atol=1e-6)
    with pytest.raises(ModelError, match=r"at most 32 along an axis of 33 now: lower data\.max_length"):
        model.logits(programs.words(3, 33))


def test_tied_weights_stay_one_tensor_and_dense(tmp_path: Path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(30, 8)
            self.head = nn.Linear(8, 30, bias=False)
            self.head.weight = self.table.weight

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.table(input_ids))

    ids = {"input_ids": programs.words()["input_ids"]}
    programs.save(programs.exported(Tied(), ids), tmp_path / "model.pt2")

    model = load_model(tmp_path, Task.causal_lm)

    assert model.classes == 30
    assert len(list(model.module.parameters())) == 1
    assert prunable_layers(model.module) == []
    assert model.notes == (
        "model.pt2: calls whose weights are in no layer of their own stay dense: aten.linear.default.",
    )


def test_half_precision_is_read_in_full(tmp_path: Path):
    half = programs.Cnn().eval().half()
    inputs = {"pixel_values": programs.images()["pixel_values"].half()}
    programs.save(programs.exported(half, inputs), tmp_path / "model.pt2")

    model = load_model(tmp_path, IMAGES)

    assert {one.dtype for one in model.module.parameters()} == {torch.float32}
    with torch.no_grad():
        wanted = half.float()(**programs.images())
        assert torch.allclose(model.logits(programs.images()), wanted, atol=1e-6)


def test_takes_the_result_that_is_named_logits(tmp_path: Path):
    class Two(programs.Cnn):
        def forward(self, pixel_values):
            scores = super().forward(pixel_values)
            return {"features": scores.mean(), "logits": scores + 1}

    programs.save(programs.exported(Two().eval(), programs.images()), tmp_path / "a.pt2")

    model = load_model(tmp_path, IMAGES)

    with torch.no_grad():
        wanted = programs.Cnn().eval()(**programs.images()) + 1
        assert torch.equal(model.logits(programs.images()), wanted)


def test_images_are_prepared_as_the_config_beside_it_says(cnn: Path, tmp_path: Path):
    assert read_preprocessing(cnn, 3).mean == (0.0, 0.0, 0.0)
    assert "divided by 255, no more" in load_model(cnn, IMAGES).notes[0]
    (tmp_path / "model.pt2").write_bytes((cnn / "model.pt2").read_bytes())
    (tmp_path / "config.json").write_text('{"library_name": "torch.export", "mean": 0.5, "std": [1, 2, 3]}')

    model = load_model(tmp_path, IMAGES)

    stated = read_preprocessing(tmp_path, 3)
    assert (stated.mean, stated.std, stated.scale) == ((0.5, 0.5, 0.5), (1.0, 2.0, 3.0), 1 / 255)
    assert model.notes == ()


def test_the_result_folder_is_loaded_from_its_archive(cnn: Path, tmp_path: Path):
    model = load_model(cnn, IMAGES)
    with torch.no_grad():
        model.module.get_submodule("head").weight.mul_(2)
    save_model(model, tmp_path)
    (tmp_path / "model.pt2").write_bytes((cnn / "model.pt2").read_bytes())

    again = load_model(tmp_path, IMAGES)

    assert isinstance(again.module, ProgramModule)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored.keys() == programs.Cnn().state_dict().keys()
    assert torch.equal(stored["head.weight"], model.module.get_parameter("head.weight"))


def test_refuses_a_batch_of_one_size_with_the_remedy(tmp_path: Path):
    program = programs.exported(programs.Cnn().eval(), programs.images(), free=False)
    programs.save(program, tmp_path / "model.pt2")

    with pytest.raises(ModelError, match=r"\[4, 3, 16, 16\], a batch of one size only: export it"):
        load_model(tmp_path, IMAGES)


def test_refuses_texts_of_one_length(tmp_path: Path):
    class Bag(nn.EmbeddingBag):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return nn.functional.embedding(input_ids, self.weight).mean(1)

    ids = {"input_ids": programs.words()["input_ids"]}
    program = torch.export.export(Bag(30, 4), (), ids, dynamic_shapes={"input_ids": {0: Dim.AUTO}})
    programs.save(program, tmp_path / "model.pt2")

    with pytest.raises(ModelError, match=r"\[\?, 9\].* all \[N, T\] with both axes free"):
        load_model(tmp_path, TEXT)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TEXT, "a model of texts takes input_ids"),
        (Task.detection, "are taken for the tasks image-classification, .*not for 'detection'"),
        (Task.causal_lm, "a model of texts takes input_ids"),
    ],
)
def test_refuses_a_task_that_the_program_does_not_do(cnn: Path, task: Task, message: str):
    with pytest.raises(ModelError, match=message):
        load_model(cnn, task)


def test_refuses_several_archives_in_a_folder(cnn: Path, tmp_path: Path):
    for name in ("a.pt2", "b.pt2"):
        (tmp_path / name).write_bytes((cnn / "model.pt2").read_bytes())

    with pytest.raises(ModelError, match=r"2 torch.export archives \(a.pt2, b.pt2\): give the uri of one"):
        load_model(tmp_path, IMAGES)
