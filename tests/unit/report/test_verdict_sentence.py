"""The headline of a report."""

from schemas.benchmark import Verdict
from schemas.report import Stage
from tests.unit.report.sample import FLOOR, sample_benchmark, sample_comparison, sample_rounds
from workers.report.verdict import verdict_sentence

FIGURES = {
    "goal": 0.8,
    "quantity": "weights of the pruned layers",
    "metric_name": "accuracy",
    "dense_metric": 0.9152,
    "pruned_metric": 0.9116,
    "floor": FLOOR,
}


def test_names_sparsity_metric_floor_and_speed():
    benchmark = sample_benchmark(
        sample_comparison(1, 1.4, 1.3, 1.5, 0.02, Verdict.faster),
        sample_comparison(32, 1.0, 0.99, 1.01, 0.02, Verdict.no_difference),
    )

    sentence = verdict_sentence(
        **FIGURES, reached=True, removed=0.8, rounds=sample_rounds(), benchmark=benchmark
    )

    assert sentence == (
        "Goal reached: 80.0 % of the weights of the pruned layers are zero; accuracy 91.52 % dense, 91.16 % "
        "pruned (−0.36 points; floor 90.52 %); speed in ONNX Runtime: faster at batch 1, no difference at "
        "batch 32."
    )


def test_names_the_round_that_broke_the_floor():
    sentence = verdict_sentence(
        **FIGURES, reached=False, removed=0.794, rounds=sample_rounds(last_held=False), benchmark=None
    )

    assert sentence.startswith(
        "Goal of 80.0 % not reached, because round 5 at 80.0 % fell below the floor: "
        "79.4 % of the weights of the pruned layers are zero"
    )


def test_blames_the_budget_where_every_round_held():
    sentence = verdict_sentence(
        **FIGURES, reached=False, removed=0.627, rounds=sample_rounds()[:2], benchmark=None
    )

    assert "because the budget allows no more rounds" in sentence


def test_does_not_blame_the_budget_where_the_last_round_aimed_at_the_goal():
    rounds = [one.model_copy(update={"target": 0.8}) for one in sample_rounds()[:1]]

    sentence = verdict_sentence(**FIGURES, reached=False, removed=0.76, rounds=rounds, benchmark=None)

    assert "because the last round came out at less than it aimed at" in sentence


def test_does_not_speak_of_speed_that_was_not_measured():
    sentence = verdict_sentence(**FIGURES, reached=True, removed=0.8, rounds=[], benchmark=None)

    assert sentence.endswith("; speed not measured.")


def of_search(last_held: bool) -> str:
    figures = {**FIGURES, "goal": None, "quantity": "multiply-accumulates"}
    rounds = sample_rounds(last_held=last_held)
    return verdict_sentence(**figures, reached=True, removed=0.794, rounds=rounds, benchmark=None)


def test_a_search_names_the_most_that_held_and_what_did_not():
    assert of_search(last_held=False).startswith(
        "The most that held, 80.0 % did not: 79.4 % of the multiply-accumulates are gone; accuracy"
    )


def test_a_search_that_never_broke_the_floor_does_not_speak_of_a_limit():
    assert of_search(last_held=True).startswith("The most that was tried, and the floor held: 79.4 %")


def test_names_the_metric_after_quantization():
    stage = Stage(name="quantized", metric=0.905, file="model.int8.onnx", bytes=10, compressed_bytes=9)

    sentence = verdict_sentence(
        **FIGURES, reached=True, removed=0.8, rounds=[], benchmark=None, stages=[stage]
    )

    assert "; 90.50 % quantized; speed not measured." in sentence
