"""The memory that a job takes at least, against figures worked out by hand."""

from collections import Counter
from typing import Any

import pytest

from schemas.memory import copies, fits, in_gb, keeps_dtype, memory_needed, remedy
from service.store.tensor_header import TensorHeader
from tests.jobs import spec

ZEROS_ONLY: dict[str, Any] = {
    "export": ["safetensors"],
    "benchmark": {"backend": "none"},
    "fine_tune": {"epochs": 0},
}
STRUCTURED: dict[str, Any] = {
    "method": {"pattern": "structured"},
    "schedule": {"kind": "iterative", "rounds": 1},
}
ADAMW: dict[str, Any] = {"fine_tune": {"optimizer": {"kind": "adamw"}}}
TWO_ROUNDS = {"kind": "iterative", "rounds": 2, "curve": "linear"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (ZEROS_ONLY, 1),
        # model, dense model and the copy of the preflight
        ({"fine_tune": {"epochs": 0}}, 3),
        ({**ZEROS_ONLY, "export": ["safetensors", "onnx"]}, 3),
        # and a gradient
        ({"fine_tune": {"optimizer": {"kind": "sgd", "momentum": 0}}}, 4),
        # and momentum
        ({"fine_tune": {"optimizer": {"kind": "sgd"}}}, 5),
        ({"fine_tune": {"optimizer": {"kind": "sgd"}, "average": {"kind": "ema"}}}, 6),
        # and two moments
        (ADAMW, 6),
        ({"fine_tune": {"optimizer": {"kind": "adamw"}, "average": {"kind": "swa"}}}, 7),
        # trained after the last cut alone
        ({"fine_tune": {"epochs": 0, "final_epochs": 1}}, 5),
    ],
)
def test_the_copies_of_the_weights_are_counted(changes: dict[str, Any], expected: float):
    assert copies(spec(**changes)) == expected
    assert memory_needed(spec(**changes), 1000) == 1000 * expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # two whole models, and half a one with its gradient and two moments
        ({"goal": {"params": 0.5}, **ADAMW}, 2 + 0.5 * 4),
        # less than the third copy before it is cut
        ({"goal": {"params": 0.1}, **ADAMW}, 3),
        # the first of two rounds trains 60 %: more than the preflight's 20 %
        ({"goal": {"params": 0.2}, **ADAMW, "schedule": TWO_ROUNDS}, 1 + 0.6 * 4),
        # nobody knows how many parameters go with the operations
        ({"goal": {"macs": 0.9}, **ADAMW}, 3),
    ],
)
def test_structured_pruning_trains_what_it_leaves(changes: dict[str, Any], expected: float):
    assert copies(spec(**{**STRUCTURED, **changes})) == pytest.approx(expected)


def test_of_a_recipe_only_the_models_are_known():
    assert copies(spec(goal=None, recipe="auto", floor={"max_drop": 0.01})) == 3


def header(**elements: int) -> TensorHeader:
    return TensorHeader(len(elements), Counter(elements))


def test_weights_are_computed_with_in_float32():
    mixed = header(F32=10, F16=20, I64=1000, BOOL=1000)

    assert mixed.computed_bytes(keep_half=False) == 120


def test_half_precision_stays_where_the_weights_have_no_other():
    assert header(BF16=10, I64=5).computed_bytes(keep_half=True) == 20
    assert header(BF16=10, F32=1).computed_bytes(keep_half=True) == 44
    assert header(F32=10).computed_bytes(keep_half=True) == 40


def test_a_job_is_refused_only_where_more_than_the_margin_is_missing():
    assert fits(100, 100)
    assert fits(100, 90)
    assert not fits(100, 89)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (ADAMW, ["fine_tune.epochs to 0", "'sgd'"]),
        ({"fine_tune": {"epochs": 0}}, ["zeros only", "one copy"]),
        ({**ZEROS_ONLY, "method": {"criterion": {"kind": "taylor"}}}, ["'magnitude'"]),
        (ZEROS_ONLY, ["float16"]),
    ],
)
def test_the_remedy_is_one_that_this_job_has(changes: dict[str, Any], words: list[str]):
    told = remedy(spec(**changes))

    assert all(word in told for word in ["more memory", *words])


@pytest.mark.parametrize("change", [ADAMW, {"fine_tune": {"epochs": 0}}])
def test_what_the_remedy_names_takes_less(change: dict[str, Any]):
    less = {"fine_tune": {"epochs": 0}} if change is ADAMW else ZEROS_ONLY

    assert copies(spec(**less)) < copies(spec(**change))
    assert keeps_dtype(spec(**ZEROS_ONLY))


def test_gigabytes_are_decimal():
    assert in_gb(1_500_000_000) == "1.50 GB"
