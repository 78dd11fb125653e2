"""Questions, texts and answers, from parquet, in windows."""

from itertools import pairwise

import pytest

from tests import small_tasks as tasks
from tests.tiny import write_parquet
from workers.data.bundle import Bundle
from workers.data.load import load_bundle
from workers.errors import DataError, ModelError
from workers.models.load import load_model
from workers.models.loaded import LoadedModel
from workers.tasks.answers import NO_ANSWER, Window, unpack

SPEC = tasks.data("question-answering", max_length=16)
QUESTION = "film0 film1"
CONTEXT = "filler0 filler1 sport0 sport1 filler2"
ANSWER = {"text": ["sport0 sport1"], "answer_start": [16]}


@pytest.fixture
def model(tmp_path) -> LoadedModel:
    return load_model(tasks.bert("BertForQuestionAnswering", tmp_path / "model"), SPEC.task)


def read(tmp_path, model: LoadedModel, answers: list, context: str = CONTEXT, **fields: object) -> Bundle:
    columns = {"question": [QUESTION] * len(answers), "context": [context] * len(answers), "answers": answers}
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"data/{split}.parquet", **columns)
    return load_bundle(tmp_path / "data", SPEC.model_copy(update=fields), model, seed=0)


def windows(bundle: Bundle) -> list[Window]:
    length = bundle.train.inputs["input_ids"].shape[1]
    return [unpack(row, length) for row in bundle.train.labels.numpy()]


def test_the_answers_tokens_are_those_of_its_characters(tmp_path, model):
    bundle = read(tmp_path, model, [ANSWER])

    ids = bundle.train.inputs["input_ids"][0].tolist()
    (one,) = windows(bundle)
    vocabulary = tasks.VOCABULARY
    assert ids[one.start : one.end + 1] == [vocabulary["sport0"], vocabulary["sport1"]]
    assert bundle.train.inputs["token_type_ids"][0].tolist() == [0] * 4 + [1] * 6
    assert one.text[one.offsets[0, one.start] : one.offsets[1, one.end]] == one.answers[0] == "sport0 sport1"


def test_a_long_text_becomes_windows_that_overlap_and_one_has_the_whole_answer(tmp_path, model):
    words = [f"filler{number % 10}" for number in range(20)]
    context = " ".join([*words, "sport0 sport1", *words])
    answer = {"text": ["sport0 sport1"], "answer_start": [len(" ".join(words)) + 1]}

    found = windows(read(tmp_path, model, [answer], context))

    assert len(found) > 3
    assert {one.question for one in found} == {0}
    holding = [one for one in found if (one.start, one.end) != (0, 0)]
    assert holding
    for one in holding:
        assert one.text[one.offsets[0, one.start] : one.offsets[1, one.end]] == "sport0 sport1"
    assert all("sport0 sport1" not in one.text for one in found if one not in holding)
    texts = [one.text for one in found]
    assert all(before.split()[-1] in after for before, after in pairwise(texts))


def test_a_question_without_answers_points_at_the_class_token(tmp_path, model):
    without, with_one = windows(read(tmp_path, model, [{"text": [], "answer_start": []}, ANSWER]))

    assert (without.start, without.end, without.answers) == (0, 0, NO_ANSWER)
    assert without.may_have_none
    assert with_one.may_have_none


def test_the_seed_draws_questions_with_all_their_windows(tmp_path, model):
    long = " ".join([CONTEXT] * 5)

    bundle = read(tmp_path, model, [ANSWER] * 6, long, max_train_samples=2)

    per_question = len(bundle.validation) // 6
    assert per_question > 1
    assert len(bundle.train) == 2 * per_question


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"text": ["sport0"], "answer_start": [3]}, "row 1: the text does not have 'sport0' at character 3"),
        ({"text": ["sport0"], "answer_start": []}, "row 1 is no struct of the lists text and answer_start"),
        (None, "row 1 is no struct of the lists"),
        ({"text": [""], "answer_start": [0]}, "row 1: the text does not have ''"),
    ],
)
def test_an_answer_that_is_not_where_it_says_is_named(tmp_path, model, answer, told):
    with pytest.raises(DataError, match=f"column 'answers' of the split 'train': {told}"):
        read(tmp_path, model, [ANSWER, answer])


def test_a_question_that_leaves_no_room_for_the_text_is_named(tmp_path, model):
    with pytest.raises(DataError, match=r"row 0: the question has 2 tokens.*raise data\.max_length"):
        read(tmp_path, model, [ANSWER], max_length=7)


def test_a_text_that_is_not_there_is_named(tmp_path, model):
    with pytest.raises(DataError, match="column 'context' of the split 'train': row 0 holds NoneType"):
        read(tmp_path, model, [ANSWER], None)


def test_a_tokenizer_that_knows_no_characters_is_refused(tmp_path, model, monkeypatch):
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.is_fast", property(lambda _: False))

    with pytest.raises(ModelError, match=r"add the tokenizer\.json of a fast tokenizer"):
        read(tmp_path, model, [ANSWER])
