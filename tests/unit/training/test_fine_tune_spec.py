"""What a user may ask of the training."""

import pytest
from pydantic import ValidationError

from schemas.fine_tune import Ema, FineTune, Rigl, Swa


def test_nothing_is_averaged_moved_or_matched_by_default():
    spec = FineTune()

    assert (spec.average, spec.regrow, spec.distill, spec.lr_schedule.rewind) == (None, None, None, 0.0)


@pytest.mark.parametrize(
    ("asked", "average"),
    [
        ({"kind": "ema"}, Ema(decay=0.999)),
        ({"kind": "ema", "decay": 0.9}, Ema(decay=0.9)),
        ({"kind": "swa"}, Swa(begin=0.75)),
    ],
)
def test_an_average_is_chosen_by_its_kind(asked, average):
    assert FineTune.model_validate({"average": asked}).average == average


def test_an_empty_object_asks_for_regrowth_as_published():
    assert FineTune.model_validate({"regrow": {}}).regrow == Rigl(every_steps=100, share=0.3, until=0.75)


@pytest.mark.parametrize(
    "fields",
    [
        {"average": {"kind": "mean"}},
        {"average": {"kind": "ema", "decay": 1.0}},
        {"average": {"kind": "swa", "begin": 1.0}},
        {"average": {"kind": "swa", "decay": 0.9}},
        {"regrow": {"share": 0.0}},
        {"regrow": {"share": 1.0}},
        {"regrow": {"until": 1.1}},
        {"regrow": {"every_steps": 0}},
        {"lr_schedule": {"rewind": 1.0}},
        {"lr_schedule": {"rewind": -0.1}},
        {"distill": {"hidden_weight": -1.0, "hidden_layers": ["layer?"]}},
    ],
    ids=str,
)
def test_what_has_no_meaning_is_refused(fields):
    with pytest.raises(ValidationError, match="FineTune"):
        FineTune.model_validate(fields)
