"""What a spec may ask of an ONNX file, told from the URI alone."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.agreement import beyond_onnx
from schemas.job_spec import JobSpec

FOUR_LINES: dict[str, Any] = {
    "model": {"uri": "s3://zoo/model.onnx"},
    "data": {"uri": "s3://data/images/"},
    "goal": {"sparsity": 0.5},
    "floor": {"max_drop": 0.01},
}
PERMUTED = {"pattern": "semi_structured", "permute": True}


def spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate({**FOUR_LINES, **changes})


def test_four_lines_are_enough_and_nothing_is_trained():
    assert spec().fine_tune.epochs == 0
    assert spec(fine_tune={"batch_size": 8}).fine_tune.epochs == 0


def test_a_folder_is_fine_tuned_as_before():
    assert spec(model={"uri": "s3://zoo/model/"}).fine_tune.epochs == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"method": {"criterion": {"kind": "random"}}},
        {"method": {"criterion": {"kind": "wanda"}}},
        {"method": {"criterion": {"kind": "sparsegpt"}}},
        {"method": {"allocation": {"kind": "erk"}}},
        {"method": {"allocation": {"kind": "lamp"}}},
        {"method": {"allocation": {"kind": "sensitivity"}}},
        {"method": {"pattern": "semi_structured"}},
        {"schedule": {"kind": "one_shot"}},
        {"goal": None, "schedule": {"kind": "search"}},
        {"quantize": {"kind": "int8_static"}},
    ],
    ids=str,
)
def test_what_needs_no_gradients_is_taken(changes: dict[str, Any]):
    assert beyond_onnx(spec(**changes)) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fine_tune": {"epochs": 1}}, "set fine_tune.epochs and fine_tune.final_epochs to 0"),
        ({"fine_tune": {"final_epochs": 1}}, "set fine_tune.epochs and fine_tune.final_epochs to 0"),
        ({"method": {"criterion": {"kind": "taylor"}}}, "criterion 'taylor' needs gradients"),
        ({"method": {"criterion": {"kind": "snip"}}}, "criterion 'snip' needs gradients"),
        ({"method": {"criterion": {"kind": "fisher"}}}, "criterion 'fisher' needs gradients"),
        ({"method": {"criterion": {"kind": "hessian"}}}, "criterion 'hessian' needs gradients"),
        ({"schedule": {"kind": "gradual"}}, "schedule 'gradual' prunes while it trains"),
        ({"method": PERMUTED}, "method.permute reorders layers"),
        ({"goal": {"macs": 0.5}, "method": {"pattern": "structured"}}, "use pattern 'unstructured'"),
        ({"goal": None, "recipe": "auto"}, "leave out the recipe"),
    ],
    ids=str,
)
def test_what_needs_gradients_or_another_graph_is_refused_with_the_remedy(
    changes: dict[str, Any], words: str
):
    with pytest.raises(ValidationError, match=words):
        spec(**changes)
