"""Learning rates that follow a part of their schedule again."""

import pytest

from schemas.fine_tune import LrSchedule
from tests.unit.training.runs import STEPS, pruned_model, train
from workers.training.optimizer import lr_factor


@pytest.mark.parametrize("kind", ["cosine", "step", "constant"])
def test_not_rewound_is_the_whole_schedule_again(kind):
    rewound, fresh = LrSchedule(kind=kind, rewind=0.0), LrSchedule(kind=kind)

    assert [lr_factor(rewound, step, 40) for step in range(40)] == [
        lr_factor(fresh, step, 40) for step in range(40)
    ]


def test_rewound_half_way_the_round_follows_the_second_half_at_half_the_pace():
    whole = LrSchedule(kind="cosine", warmup=0.1)
    half = LrSchedule(kind="cosine", warmup=0.1, rewind=0.5)

    factors = [lr_factor(half, step, 40) for step in range(40)]

    assert factors[::2] == pytest.approx([lr_factor(whole, step, 40) for step in range(20, 40)])
    assert factors == sorted(factors, reverse=True)


def test_rewound_past_the_warm_up_there_is_none():
    schedule = LrSchedule(kind="constant", warmup=0.2, rewind=0.25)

    assert {lr_factor(schedule, step, 20) for step in range(20)} == {1.0}


def test_rewound_into_the_steps_the_rate_begins_low():
    schedule = LrSchedule(kind="step", warmup=0.0, rewind=0.5)

    assert [lr_factor(schedule, step, 4) for step in range(4)] == [0.1, 0.1, 0.01, 0.01]


def test_the_rewound_rate_reaches_the_optimizer():
    model, choice = pruned_model()
    rates: list[float] = []

    schedule = LrSchedule(kind="cosine", warmup=0, rewind=0.5)
    train(model, choice, lr_schedule=schedule, on_step=lambda info: rates.append(info.lr))

    assert rates[0] == pytest.approx(0.05 / 2)
    assert rates == pytest.approx([0.05 * lr_factor(schedule, step, STEPS) for step in range(STEPS)])
