"""Hidden tokens: how many, which, and always the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import small_tasks as tasks
from workers.data.load import load_bundle
from workers.data.masking import mask_some
from workers.errors import ModelError
from workers.loss import IGNORED
from workers.models.load import load_model

TOKENIZER = tasks.tokenizer()
MASK = tasks.VOCABULARY["[MASK]"]
SPEC = tasks.data("masked-lm", max_length=8)


def blocks(rows: int, tokens: int) -> torch.Tensor:
    """Words only, but for a special token at the end of each block."""
    ids = torch.randint(5, len(tasks.VOCABULARY), (rows, tokens), generator=torch.Generator().manual_seed(1))
    ids[:, -1] = tasks.VOCABULARY["[SEP]"]
    return ids


def test_15_percent_are_to_be_guessed_of_which_80_are_masked_and_10_are_another_token():
    ids = blocks(400, 101)

    inputs, labels = mask_some(ids, TOKENIZER, 0)

    hidden = labels != IGNORED
    changed = hidden & (inputs != ids) & (inputs != MASK)
    assert hidden.sum() / (400 * 100) == pytest.approx(0.15, abs=0.01)
    assert (inputs[hidden] == MASK).float().mean() == pytest.approx(0.8, abs=0.02)
    # one in 35 random words is the right one
    assert changed.sum() / hidden.sum() == pytest.approx(0.1 * 34 / 35, abs=0.02)
    assert torch.equal(labels[hidden], ids[hidden])
    assert torch.equal(inputs[~hidden], ids[~hidden])
    assert not hidden[:, -1].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 4))
def test_each_block_has_something_to_guess(seed: int, tokens: int):
    _, labels = mask_some(blocks(20, tokens), TOKENIZER, seed)

    assert (labels != IGNORED).any(dim=1).all()


def test_the_seed_decides():
    ids = blocks(20, 30)

    one, again, other = (mask_some(ids, TOKENIZER, seed)[0] for seed in (3, 3, 4))

    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_tokenizer_without_a_mask_is_refused():
    with pytest.raises(ModelError, match="set 'mask_token'"):
        mask_some(blocks(2, 4), tasks.tokenizer(mask_token=None), 0)


def test_texts_keep_their_special_tokens_and_the_loss_is_the_librarys_own(tmp_path):
    model = load_model(tasks.bert("BertForMaskedLM", tmp_path / "model"), SPEC.task)
    bundle = load_bundle(tasks.texts(tmp_path / "data"), SPEC, model, seed=0)
    inputs, labels = next(bundle.batches(bundle.train, 8, device=model.device))

    loss = model.kind.loss(model.logits(inputs), labels)

    assert torch.isclose(loss, model.module(**inputs, labels=labels).loss)
    stream = bundle.train.inputs["input_ids"].flatten()
    first = tasks.VOCABULARY["[CLS]"]
    assert stream[0] == first
    assert (stream == first).sum() > 1


def test_a_line_of_a_text_file_is_a_text(tmp_path):
    model = load_model(tasks.bert("BertForMaskedLM", tmp_path / "model"), SPEC.task)
    for split in ("train", "validation"):
        (tmp_path / f"{split}.txt").write_text("film0 film1\n\nfilm2\nfilm3 film4 film0\n")

    split = load_bundle(tmp_path, SPEC, model, seed=0).validation

    whole = torch.where(split.labels == IGNORED, split.inputs["input_ids"], split.labels)
    words = ["[CLS]", "film0", "film1", "[SEP]", "[CLS]", "film2", "[SEP]", "[CLS]"]
    assert whole.tolist() == [[tasks.VOCABULARY[word] for word in words]]


def test_arrays_are_blocks_to_hide_tokens_of(tmp_path):
    model = load_model(tasks.bert("BertForMaskedLM", tmp_path / "model"), SPEC.task)
    ids = blocks(6, 8).numpy()
    for split in ("train", "validation"):
        np.savez(tmp_path / f"{split}.npz", input_ids=ids)

    split = load_bundle(tmp_path, SPEC, model, seed=0).validation

    assert torch.equal(split.inputs["input_ids"], mask_some(torch.from_numpy(ids), TOKENIZER, 0)[0])
