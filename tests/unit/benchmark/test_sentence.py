"""Verdicts in words."""

import pytest

from schemas.benchmark import Verdict
from workers.benchmark.sentence import sentence
from workers.benchmark.stats import Interval


@pytest.mark.parametrize(
    ("verdict", "interval", "noise", "text"),
    [
        (
            Verdict.no_difference,
            Interval(1.0, 0.99, 1.02),
            0.011,
            "Batch 1: no difference can be shown: 0.99x to 1.02x with 95 % confidence, noise 1.1 %.",
        ),
        (
            Verdict.faster,
            Interval(1.42, 1.38, 1.45),
            0.02,
            "Batch 1: the pruned model is faster, 1.42x the dense model's speed: 1.38x to 1.45x with 95 % "
            "confidence, noise 2.0 %.",
        ),
        (
            Verdict.slower,
            Interval(0.8, 0.78, 0.83),
            0.02,
            "Batch 1: the pruned model is slower, 0.80x the dense model's speed: 0.78x to 0.83x with 95 % "
            "confidence, noise 2.0 %.",
        ),
        (
            Verdict.unstable,
            Interval(1.4, 1.3, 1.5),
            0.254,
            "Batch 1: nothing can be said: the dense model differs from itself by up to 25 % (limit 10 %), "
            "usually because other work runs on the machine.",
        ),
    ],
)
def test_each_verdict_has_its_sentence(verdict, interval, noise, text):
    assert sentence(1, verdict, interval, noise) == text


@pytest.mark.parametrize("verdict", [Verdict.no_difference, Verdict.unstable])
def test_names_no_speed_that_was_not_shown(verdict):
    text = sentence(8, verdict, Interval(1.37, 0.9, 1.8), 0.2)

    assert "1.37" not in text
    assert "faster" not in text
