"""Texts and their targets, from parquet."""

import pytest
import torch

from tests import small_tasks as tasks
from tests.tiny import write_parquet
from workers.data.load import load_bundle
from workers.data.pairs import read_late
from workers.errors import DataError, ModelError
from workers.loss import IGNORED
from workers.models.load import load_model

SPEC = tasks.data("seq2seq-lm")


@pytest.mark.parametrize("make", [tasks.t5, tasks.bart])
def test_the_loss_is_the_librarys_own(tmp_path, make):
    model = load_model(make(tmp_path / "model"), SPEC.task)
    bundle = load_bundle(tasks.pairs(tmp_path / "data"), SPEC, model, seed=0)
    inputs, labels = next(bundle.batches(bundle.train, 8, device=model.device))

    loss = model.kind.loss(model.logits(inputs), labels)

    names = ("input_ids", "attention_mask")
    expected = model.module(**{name: inputs[name] for name in names}, labels=labels).loss
    assert (labels == IGNORED).any()
    assert torch.isclose(loss, expected)


def test_a_model_without_a_rule_begins_with_the_configs_token(tmp_path):
    model = load_model(tasks.t5(tmp_path / "model"), SPEC.task)
    labels = torch.tensor([[5, 6, 3], [7, 3, IGNORED]])
    own = read_late(labels, model)
    model.module = torch.nn.Module()  # only its config is asked
    config = type("Config", (), {"decoder_start_token_id": 0, "pad_token_id": 0})
    model.module.config = config

    assert read_late(labels, model).tolist() == own.tolist() == [[0, 5, 6], [0, 7, 3]]
    config.decoder_start_token_id = None
    with pytest.raises(ModelError, match="decoder_start_token_id"):
        read_late(labels, model)


def test_a_row_without_a_target_is_named(tmp_path):
    model = load_model(tasks.t5(tmp_path / "model"), SPEC.task)
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"{split}.parquet", text=["film0", "film1"], target=["film0", None])

    with pytest.raises(DataError, match="column 'target' of the split 'train': row 1 holds NoneType"):
        load_bundle(tmp_path, SPEC, model, seed=0)
