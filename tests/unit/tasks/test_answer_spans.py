"""Question answering: windows in one tensor, the best answer in them, and SQuAD's figures."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import squad

from tests import small_tasks as tasks
from workers.data.load import load_bundle
from workers.models.load import load_model
from workers.tasks.answers import (
    EXACT,
    LONGEST_ANSWER,
    NO_ANSWER,
    QuestionAnswering,
    Window,
    best_spans,
    pack,
    unpack,
)
from workers.tasks.kind import Measured

TEXT = "ab cd ef"


def window(text: str = TEXT, *, question: int = 0, answers: tuple[str, ...] = ("cd",)) -> Window:
    """One token for the class, one for each word of two letters, one for the end."""
    words = text.split()
    starts = [-1, *(3 * number for number in range(len(words))), -1]
    ends = [-1, *(3 * number + 2 for number in range(len(words))), -1]
    return Window(2, 2, question, 0, np.array([starts, ends], np.int32), text, answers)


def scores(*spans: tuple[int, int], none: float = 0.0, tokens: int = 5) -> torch.Tensor:
    """Scores [N, 2, T] of models that choose these spans with score 2 in all."""
    found = torch.full((len(spans), 2, tokens), -5.0)
    for row, (first, last) in enumerate(spans):
        found[row, 0, first] = found[row, 1, last] = 1.0
        found[row, :, 0] = none / 2
    return found


def measured(windows: list[Window], found: torch.Tensor) -> Measured:
    measure = QuestionAnswering().measure(None, torch.device("cpu"))  # type: ignore[arg-type]
    labels = pack(windows, found.shape[-1], left=False)
    for row in range(len(windows)):  # batches of one: windows of one question may be in different batches
        measure.update(found[row : row + 1], labels[row : row + 1], {})
    return measure.compute()


@settings(max_examples=40, deadline=None)
@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=3), st.booleans())
def test_a_window_comes_out_of_its_labels_as_it_went_in(text: str, answers: list[str], left: bool):
    text = text.replace("\0", " ")
    one = Window(1, 2, 7, 0, np.array([[-1, 0, 3], [-1, 2, 5]], np.int32), text, tuple(answers))

    back = unpack(pack([one, window("ab " * 9)], 11, left=left).numpy()[0], 11)

    shift = 8 if left else 0
    assert (back.start, back.end, back.question, back.class_token) == (1 + shift, 2 + shift, 7, shift)
    assert (back.text, back.answers, back.may_have_none) == (one.text, one.answers, False)
    assert (back.offsets[:, shift : shift + 3] == one.offsets).all()
    assert int((back.offsets == -1).sum()) == 2 * 8 + 2


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, LONGEST_ANSWER + 10))
def test_the_best_span_is_the_best_of_all_that_are_allowed(seed: int, tokens: int):
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(2, 2, tokens, generator=generator)
    places = torch.rand(2, tokens, generator=generator) < 0.7
    places[:, 0] = True

    values, starts, ends = best_spans(found, places)

    for row in range(2):
        allowed = [
            (float(found[row, 0, first] + found[row, 1, last]), first, last)
            for first in range(tokens)
            for last in range(first, min(tokens, first + LONGEST_ANSWER))
            if places[row, first] and places[row, last]
        ]
        assert float(values[row]) == max(allowed)[0]
        assert (float(values[row]), int(starts[row]), int(ends[row])) in allowed


def test_the_loss_is_the_librarys_own(tmp_path):
    make_model, make_data, spec = tasks.CASES["question-answering"]
    model = load_model(make_model(tmp_path / "model"), spec.task)
    bundle = load_bundle(make_data(tmp_path / "data"), spec, model, seed=0)
    inputs, labels = next(bundle.batches(bundle.train, 8, device=model.device))

    loss = model.kind.loss(model.logits(inputs), labels)

    start, end = labels[:, 0].long(), labels[:, 1].long()
    expected = model.module(**inputs, start_positions=start, end_positions=end).loss
    assert torch.isclose(loss, expected)


def test_the_metric_is_what_squad_says_of_the_text():
    result = measured([window(answers=("cd", "cd ef gh")), window(question=1)], scores((2, 3), (2, 2)))

    expected = squad(
        [{"id": "0", "prediction_text": "cd ef"}, {"id": "1", "prediction_text": "cd"}],
        [
            {"id": "0", "answers": {"text": ["cd", "cd ef gh"], "answer_start": [0, 0]}},
            {"id": "1", "answers": {"text": ["cd"], "answer_start": [0]}},
        ],
    )
    assert result.value == pytest.approx(float(expected["f1"]) / 100)
    assert result.others == {EXACT: float(expected["exact_match"]) / 100} == {EXACT: 0.5}


def test_the_best_window_of_a_question_answers_it():
    unsure = scores((1, 1)) - 1

    result = measured([window(), window("cd xx yy")], torch.cat([unsure, scores((1, 1))]))

    assert result.value == 1


def test_tokens_of_the_question_are_no_answer():
    only_class = scores((2, 2), none=50.0)

    assert measured([window()], only_class).value == 1


def test_a_question_may_have_no_answer_where_the_data_has_such_questions():
    windows = [window(answers=NO_ANSWER), window(question=1)]

    right = measured(windows, torch.cat([scores((1, 1), none=9.0), scores((2, 2))]))
    wrong = measured(windows, torch.cat([scores((1, 1), none=0.0), scores((2, 2), none=9.0)]))

    assert (right.value, wrong.value) == (1, 0)


def test_no_answer_needs_all_windows_to_see_none():
    windows = [window(), window("cd xx yy"), window(question=1, answers=NO_ANSWER)]
    found = torch.cat([scores((1, 1), none=9.0) - 3, scores((1, 1)), scores((1, 1), none=9.0)])

    assert measured(windows, found).value == 1
