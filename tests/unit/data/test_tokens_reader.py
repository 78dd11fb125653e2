"""Words and their tags, from parquet."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from tests import small_tasks as tasks
from tests.tiny import write_parquet
from workers.data.bundle import Bundle
from workers.data.load import load_bundle
from workers.data.tokens import first_pieces
from workers.errors import DataError
from workers.loss import IGNORED
from workers.models.load import load_model
from workers.models.loaded import LoadedModel

WORDS, TAGS = [["film0", "sport1"], ["filler2"]], [[1, 2], [0]]
SPEC = tasks.data("token-classification")


@pytest.fixture
def model(tmp_path) -> LoadedModel:
    return load_model(tasks.token_classifier(tmp_path / "model"), SPEC.task)


def read(tmp_path, model: LoadedModel, tokens: list, ner_tags: list, **fields: object) -> Bundle:
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"data/{split}.parquet", tokens=tokens, ner_tags=ner_tags)
    return load_bundle(tmp_path / "data", SPEC.model_copy(update=fields), model, seed=0)


def test_the_first_token_of_a_word_has_its_class_and_the_others_have_none():
    assert first_pieces([None, 0, 0, 1, 2, 2, None], [5, 6, 7]).tolist() == [
        *(IGNORED, 5, IGNORED, 6, 7, IGNORED, IGNORED)
    ]


def test_sentences_are_padded_with_labels_that_do_not_count(tmp_path, model):
    train = read(tmp_path, model, WORDS, TAGS).train

    vocabulary = tasks.VOCABULARY
    first = [vocabulary[word] for word in ("[CLS]", "film0", "sport1", "[SEP]")]
    second = [vocabulary[word] for word in ("[CLS]", "filler2", "[SEP]", "[PAD]")]
    assert train.inputs["input_ids"].tolist() == [first, second]
    assert train.inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert train.labels.tolist() == [[IGNORED, 1, 2, IGNORED], [IGNORED, 0, IGNORED, IGNORED]]


def test_tags_may_be_names_of_the_model(tmp_path, model):
    train = read(tmp_path, model, WORDS, [["B-TOPIC", "I-TOPIC"], ["O"]]).train

    assert train.labels[0].tolist() == [IGNORED, 1, 2, IGNORED]


def test_numbers_follow_the_names_that_the_data_set_gives_them(tmp_path, model):
    features = {
        "ner_tags": {
            "_type": "List",
            "feature": {"_type": "ClassLabel", "names": ["I-topic", "O", "B-topic"]},
        }
    }
    table = pyarrow.table({"tokens": WORDS, "ner_tags": [[2, 0], [1]]}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        pyarrow.parquet.write_table(table, tmp_path / f"data/{split}.parquet")

    train = load_bundle(tmp_path / "data", SPEC, model, seed=0).train

    assert train.labels.tolist() == [[IGNORED, 1, 2, IGNORED], [IGNORED, 0, IGNORED, IGNORED]]


def test_words_that_are_cut_have_no_label(tmp_path, model):
    train = read(tmp_path, model, [["film0", "film1", "film2"]], [[1, 2, 0]], max_length=4).train

    assert train.labels.tolist() == [[IGNORED, 1, 2, IGNORED]]


def test_empty_sentences_are_left_out(tmp_path, model):
    assert len(read(tmp_path, model, [*WORDS, []], [*TAGS, []]).train) == 2

    with pytest.raises(DataError, match="has no words"):
        read(tmp_path, model, [["film0"][:0]] * 2, [[1][:0]] * 2)


@pytest.mark.parametrize(
    ("tokens", "tags", "told"),
    [
        (WORDS, [[1, 2], [0, 0]], "'ner_tags' .*row 1 has 1 words and 2 classes"),
        (WORDS, [[1, 2], None], "'ner_tags' .*row 1 has 1 words and None"),
        (
            WORDS,
            [[1, 2], [3]],
            "'ner_tags' .*row 1: the list: row 0 is 3, but the model's head has the 3 classes",
        ),
        (WORDS, [["O", "O"], ["X"]], "'ner_tags' .*row 1: the list: row 0 is 'X'"),
        ([["film0", "film1"], [None]], TAGS, "'tokens' .*row 1 holds NoneType where a text should be"),
        (["film0 film1", "film2"], TAGS, "'tokens' .*row 0 holds str where a list of words should be"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path, model, tokens, tags, told):
    with pytest.raises(DataError, match=told):
        read(tmp_path, model, tokens, tags)


def test_arrays_and_text_files_are_refused_with_what_is_read(tmp_path, model):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.txt").write_text("film0")

    with pytest.raises(DataError, match=r"reads parquet files.*train\.txt: give train\.parquet"):
        load_bundle(tmp_path, SPEC, model, seed=0)
