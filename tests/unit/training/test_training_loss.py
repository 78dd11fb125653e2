"""What one step descends: of samples, and of tokens."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from schemas.fine_tune import Distill, FineTune
from tests.unit.pruning.small import loaded
from workers.loss import IGNORED, cross_entropy, softened_divergence
from workers.training.trainer import Trainer

WORDS = 7


def language_model(seed: int):
    torch.manual_seed(seed)
    model = loaded(nn.Sequential(nn.Embedding(WORDS, 4), nn.Linear(4, WORDS)))
    return replace(model, call=lambda part, batch: part(batch["input_ids"]))


def test_scores_of_tokens_are_compared_token_by_token():
    student, teacher = torch.randn(2, 3, WORDS), torch.randn(2, 3, WORDS)

    loss = softened_divergence(student, teacher, 2.0)

    each = [
        softened_divergence(student[n, t][None], teacher[n, t][None], 2.0) for n in range(2) for t in range(3)
    ]
    torch.testing.assert_close(loss, torch.stack(each).mean())


@pytest.mark.parametrize("distill", [None, Distill(weight=0.4, temperature=2.0)])
def test_the_loss_of_a_language_model_leaves_ignored_tokens_out(distill):
    model, teacher = language_model(0), language_model(1)
    batch = {"input_ids": torch.randint(WORDS, (3, 5))}
    labels = torch.cat([batch["input_ids"][:, 1:], torch.full((3, 1), IGNORED)], dim=1)
    expected = cross_entropy(model.logits(batch), labels, label_smoothing=0.1)
    if distill is not None:
        softened = softened_divergence(model.logits(batch), teacher.logits(batch), 2.0)
        expected = 0.6 * expected + 0.4 * softened
    trainer = Trainer(model, [], FineTune(label_smoothing=0.1, distill=distill), teacher, 2)

    loss = trainer.step(batch, labels)

    torch.testing.assert_close(loss, expected.detach())
    assert float(trainer.step(batch, labels)) < float(loss)
