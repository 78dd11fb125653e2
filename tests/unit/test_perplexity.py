"""Token probability and perplexity, against what transformers says."""

import math
from pathlib import Path

import pytest
import torch

from tests.language import VOCABULARY, llama, scores
from workers.data.bundle import Bundle, Split
from workers.data.language import next_tokens
from workers.data.normalize import as_they_are
from workers.errors import ModelError
from workers.evaluate import judge, metric_of
from workers.models.loaded import LoadedModel
from workers.tasks.language import PERPLEXITY, TOKENS_AT_A_TIME, perplexity


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    return llama(tmp_path)


def bundle_of(blocks: int, length: int) -> Bundle:
    ids = torch.randint(0, len(VOCABULARY), (blocks, length), generator=torch.Generator().manual_seed(0))
    split = Split({"input_ids": ids}, next_tokens(ids))
    return Bundle(split, split, as_they_are)


def probability(model: LoadedModel, bundle: Bundle, batch_size: int = 4) -> float:
    return metric_of(model, bundle, batch_size=batch_size, on_batch=lambda *_: None)


def test_a_model_that_knows_nothing_gives_each_token_the_same_probability(model):
    torch.nn.init.zeros_(model.module.get_input_embeddings().weight)  # tied: all scores are 0

    measured = probability(model, bundle_of(3, 8))

    assert measured == pytest.approx(1 / len(VOCABULARY), rel=1e-6)
    assert perplexity(measured) == pytest.approx(len(VOCABULARY), rel=1e-6)


def test_perplexity_is_what_transformers_own_loss_says(model):
    bundle = bundle_of(4, 9)
    ids = bundle.validation.inputs["input_ids"]

    measured = perplexity(probability(model, bundle))

    with torch.no_grad():
        loss = model.module(input_ids=ids, labels=ids).loss
    assert measured == pytest.approx(math.exp(float(loss)), rel=1e-5)


def test_the_batch_size_changes_nothing(model):
    bundle = bundle_of(7, 6)

    assert probability(model, bundle, 1) == pytest.approx(probability(model, bundle, 7), rel=1e-6)


def test_long_blocks_make_small_batches(tmp_path):
    model = llama(tmp_path)
    seen = []

    def call(module: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(tuple(batch["input_ids"].shape))
        return torch.zeros(*batch["input_ids"].shape, len(VOCABULARY))

    model.call = call
    probability(model, bundle_of(5, TOKENS_AT_A_TIME // 2), batch_size=256)

    assert [shape[0] for shape in seen] == [2, 2, 1]


def test_progress_is_told_after_each_batch(model):
    told = []

    metric_of(model, bundle_of(5, 4), batch_size=2, on_batch=lambda *at: told.append(at))

    assert told == [(1, 3), (2, 3), (3, 3)]


def test_scores_of_nan_are_an_error_that_says_so(model):
    model.call = lambda module, batch: scores(module, batch) * torch.nan

    with pytest.raises(ModelError, match="NaN"):
        probability(model, bundle_of(2, 4))


def test_no_probability_at_all_is_infinite_perplexity():
    assert perplexity(0.0) == math.inf


def test_a_report_has_the_perplexity_that_people_quote(model):
    measured = judge(model, bundle_of(3, 8), batch_size=4, on_batch=lambda *_: None)

    assert measured.others == {PERPLEXITY: pytest.approx(1 / measured.value)}
