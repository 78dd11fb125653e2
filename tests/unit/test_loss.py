"""One loss for classifiers and language models."""

import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from workers.loss import IGNORED, cross_entropy

SIZES = st.integers(1, 6)


@given(SIZES, st.integers(2, 6), st.floats(0, 0.5))
def test_of_a_classifier_it_is_the_plain_cross_entropy(samples: int, classes: int, smoothing: float):
    scores, labels = torch.randn(samples, classes), torch.randint(0, classes, (samples,))

    loss = cross_entropy(scores, labels, label_smoothing=smoothing)

    assert torch.equal(loss, F.cross_entropy(scores, labels, label_smoothing=smoothing))


@given(SIZES, st.integers(2, 6), st.integers(2, 6))
def test_of_a_language_model_it_is_the_mean_over_the_tokens_that_have_a_next(
    blocks: int, length: int, words: int
):
    scores, labels = torch.randn(blocks, length, words), torch.randint(0, words, (blocks, length))
    labels[:, -1] = IGNORED

    loss = cross_entropy(scores, labels)

    each = -scores[:, :-1].log_softmax(-1).gather(-1, labels[:, :-1, None])
    torch.testing.assert_close(loss, each.mean())


def test_what_is_ignored_has_no_gradient():
    scores = torch.randn(2, 3, 4, requires_grad=True)
    labels = torch.tensor([[0, 1, IGNORED], [2, 3, IGNORED]])

    cross_entropy(scores, labels).backward()

    assert scores.grad is not None
    assert scores.grad[:, -1].eq(0).all()
    assert scores.grad[:, :-1].ne(0).all()
