"""Models of texts and sounds: the head that the task asks for, and the weights as the hub stores them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from schemas.task import Task
from tests import small_tasks as tasks
from tests import tiny
from workers.errors import ModelError
from workers.models.load import load_model
from workers.models.loaded import Batch
from workers.models.save import COMPANIONS, save_model
from workers.transfer import MODEL_FILES, wanted

WEIGHTS = "model.safetensors"
IDS = torch.tensor([[2, 9, 12, 30, 3]])
READ: Batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
BOTH: Batch = {**READ, "decoder_input_ids": torch.tensor([[0, 8, 9]])}


@pytest.mark.parametrize(
    ("what", "inputs", "shape"),
    [
        ("token-classification", READ, (1, 5, 3)),
        ("question-answering", READ, (1, 2, 5)),
        ("regression of texts", READ, (1, 1)),
        ("masked-lm", READ, (1, 5, len(tasks.VOCABULARY))),
        ("seq2seq-lm of T5", BOTH, (1, 3, len(tasks.VOCABULARY))),
        ("seq2seq-lm of BART", BOTH, (1, 3, len(tasks.VOCABULARY))),
        ("audio-classification", {"input_values": torch.randn(1, 300)}, (1, tiny.CLASSES)),
        ("regression of images", {"pixel_values": torch.randn(1, 1, 16, 16)}, (1, 1)),
    ],
)
def test_scores_are_one_tensor_with_the_samples_first(tmp_path, what, inputs, shape):
    make, _, spec = tasks.CASES[what]
    folder = make(tmp_path)

    model = load_model(folder, spec.task)

    named = json.loads((folder / "config.json").read_text())["architectures"][0]
    assert model.architecture == f"transformers/{named}"
    assert model.logits(inputs).shape == shape
    assert (model.image_channels > 0) == (what == "regression of images")


def test_spans_are_the_librarys_scores(tmp_path):
    folder = tasks.bert("BertForQuestionAnswering", tmp_path)

    scores = load_model(folder, Task.question_answering).logits(READ)

    output = transformers.AutoModelForQuestionAnswering.from_pretrained(folder)(**READ)
    assert torch.equal(scores[:, 0], output.start_logits)
    assert torch.equal(scores[:, 1], output.end_logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "make", [tasks.t5, tasks.bart, tasks.token_classifier], ids=lambda make: make.__name__
)
def test_half_precision_and_tied_weights_in_shards_come_out_as_the_library_reads_them(tmp_path, make, dtype):
    task = Task.token_classification if make is tasks.token_classifier else Task.seq2seq_lm
    folder = make(tmp_path / "whole")
    halves = {name: value.to(dtype) for name, value in load_file(folder / WEIGHTS).items()}
    sharded = in_shards(folder, halves, tmp_path / "sharded")

    module = load_model(sharded, task).module

    library = type(module).from_pretrained(sharded, dtype=torch.float32)
    for name, value in library.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name
        assert value.dtype == torch.float32
    tied = module.get_output_embeddings()
    if tied is not None:
        assert tied.weight is module.get_input_embeddings().weight


def in_shards(folder: Path, weights: dict[str, torch.Tensor], target: Path) -> Path:
    """The folder with its weights in two files and an index."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(WEIGHTS))
    names = sorted(weights)
    files = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(files.values()):
        part = {name: weights[name].clone() for name in names if files[name] == file}
        save_file(part, target / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    return target


@pytest.mark.parametrize("what", ["seq2seq-lm of T5", "audio-classification"])
def test_tokenizer_and_feature_extractor_travel_with_the_result(tmp_path, what):
    make, _, spec = tasks.CASES[what]
    model = load_model(make(tmp_path / "model"), spec.task)

    save_model(model, tmp_path / "result")

    before, after = ({path.name for path in (tmp_path / name).iterdir()} for name in ("model", "result"))
    assert before <= after
    again = load_model(tmp_path / "result", spec.task)
    for name, value in model.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], value), name


def test_all_that_travels_with_a_result_is_fetched():
    assert [name for name in COMPANIONS if not wanted(name, MODEL_FILES)] == []


@pytest.mark.parametrize(
    ("make", "task", "told"),
    [
        (tasks.t5, Task.audio_classification, "'t5' has no audio-classification model"),
        (
            tasks.token_classifier,
            Task.regression,
            "the head has 3 outputs, and data.task 'regression' means one",
        ),
        (tasks.wav2vec2, Task.question_answering, "'wav2vec2' has no question-answering model"),
    ],
)
def test_a_model_of_another_task_is_refused(tmp_path, make, task, told):
    with pytest.raises(ModelError, match=told):
        load_model(make(tmp_path), task)
