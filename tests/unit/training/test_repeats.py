"""A round can be repeated bit by bit, whatever it is asked to do."""

import pytest
import torch

from schemas.fine_tune import AdamW, Distill, Ema, Rigl, Swa
from tests.unit.pruning.small import loaded, small_module
from tests.unit.training.runs import gradual, pruned_model, same, state, train

MOVING = Rigl(every_steps=2)
HIDDEN = Distill(hidden_weight=1.0, hidden_layers=("3",))
ASKED = {
    "rewind": {"lr_schedule": {"rewind": 0.4}},
    "regrow": {"regrow": MOVING},
    "ema": {"average": Ema(decay=0.9)},
    "swa": {"average": Swa(begin=0.5)},
    "hidden states": {"distill": HIDDEN},
    "gradual": {"gradual": True},
    "all of it": {
        "gradual": True,
        "regrow": MOVING,
        "average": Ema(),
        "distill": HIDDEN,
        "lr_schedule": {"rewind": 0.2},
        "optimizer": AdamW(lr=0.01),
    },
}


def after_a_round(asked: dict) -> dict[str, torch.Tensor]:
    model, choice = pruned_model(0.3)
    options = dict(asked)
    if options.pop("gradual", False):
        options["mask_updates"] = gradual(choice, 0.8, every_steps=2)
    teacher = loaded(small_module(seed=5)) if "distill" in options else None
    train(model, choice, epochs=3, teacher=teacher, **options)
    return state(model)


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_a_round_repeated_ends_with_the_same_bits_and_not_as_a_plain_one(asked):
    first = after_a_round(asked)
    torch.rand(17)

    assert same(first, after_a_round(asked))
    assert not same(first, after_a_round({}))
