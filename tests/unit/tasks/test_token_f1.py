"""Token classification: the library's own loss, and seqeval's own figures."""

import pytest
import torch
from seqeval.metrics import accuracy_score, f1_score
from seqeval.scheme import BILOU

from tests import small_tasks as tasks
from workers.data.load import load_bundle
from workers.loss import IGNORED
from workers.models.load import load_model
from workers.models.loaded import LoadedModel
from workers.tasks.kind import Measured
from workers.tasks.tokens import ACCURACY, TokenClassification, tags_of


@pytest.fixture
def model(tmp_path) -> LoadedModel:
    return load_model(tasks.token_classifier(tmp_path / "model"), TokenClassification.task)


def measured(model: LoadedModel, classes: list[list[int]], right: list[list[int]]) -> Measured:
    """What is measured of a model that answers `classes` where `right` is right, in batches of one."""
    measure = model.kind.measure(model, torch.device("cpu"))
    for found, wanted in zip(classes, right, strict=True):
        scores = torch.nn.functional.one_hot(torch.tensor([found]), model.classes).float()
        measure.update(scores, torch.tensor([wanted]), {})
    return measure.compute()


def test_the_loss_is_the_librarys_own(tmp_path, model):
    bundle = load_bundle(tasks.tagged(tmp_path / "data"), tasks.data("token-classification"), model, seed=0)
    inputs, labels = next(bundle.batches(bundle.train, 8, device=model.device))

    loss = model.kind.loss(model.logits(inputs), labels)

    assert torch.isclose(loss, model.module(**inputs, labels=labels).loss)


def test_the_metric_is_what_seqeval_says_of_the_words_that_count(model):
    right = [[IGNORED, 1, 2, 0, IGNORED], [IGNORED, 0, 1, 1, IGNORED]]
    found = [[2, 1, 2, 0, 1], [0, 1, 1, 2, 0]]

    result = measured(model, found, right)

    names = [["B-TOPIC", "I-TOPIC", "O"], ["O", "B-TOPIC", "B-TOPIC"]]
    told = [["B-TOPIC", "I-TOPIC", "O"], ["B-TOPIC", "B-TOPIC", "I-TOPIC"]]
    assert result.value == pytest.approx(f1_score(names, told))
    assert 0 < result.value < 1
    assert result.others == {ACCURACY: pytest.approx(accuracy_score(names, told))}


def test_a_model_that_finds_nothing_has_the_metric_0(model):
    assert measured(model, [[0, 0]], [[1, 2]]).value == 0


def test_tags_of_the_bilou_scheme_are_read_by_it(model):
    model.module.config.id2label = {0: "O", 1: "B-X", 2: "L-X"}
    right, found = [[1, 2, 0]], [[1, 0, 0]]

    result = measured(model, found, right)

    names, told = [["B-X", "L-X", "O"]], [["B-X", "O", "O"]]
    assert result.value == f1_score(names, told, mode="strict", scheme=BILOU)
    assert measured(model, right, right).value == 1


def test_words_with_plain_tags_are_entities_of_one_word(model):
    model.module.config.id2label = {0: "O", 1: "NOUN", 2: "VERB"}

    result = measured(model, [[1, 1, 2, 2]], [[1, 1, 1, 2]])

    assert result.value == result.others[ACCURACY] == 0.75
    assert tags_of(["O", "NOUN"]) == ["O", "B-NOUN"]
    assert tags_of(["O", "B-PER", "I-PER"]) == ["O", "B-PER", "I-PER"]
