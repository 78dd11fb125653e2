"""The job spec: what it fills in, and everything that it refuses."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.job import JobPatch
from schemas.job_spec import EXAMPLE, ONE_SHOT_EXAMPLE, JobSpec

LEAST: dict[str, Any] = {
    "model": {"uri": "s3://zoo/resnet/"},
    "data": {"uri": "s3://data/fashion/"},
    "goal": {"sparsity": 0.8},
}
DATA: dict[str, Any] = {"uri": "s3://data/d/"}


def spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate({**LEAST, **changes})


def refusals(value: Any) -> dict[str, str]:
    """Message by dotted place of all that is wrong with this spec."""
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(value)
    return {".".join(map(str, one["loc"])): one["msg"] for one in caught.value.errors()}


def test_four_lines_are_a_spec():
    made = spec()

    assert made.floor.max_drop == 0.01
    assert made.method.pattern == "unstructured"
    assert made.export == ("safetensors", "onnx")
    assert made.schedule.rounds_in_all() == 5


@pytest.mark.parametrize("example", [EXAMPLE, ONE_SHOT_EXAMPLE])
def test_the_examples_are_valid(example: dict[str, Any]):
    assert JobSpec.model_validate(example)


def test_a_spec_survives_its_own_json():
    made = spec(metadata={"a": "b"}, tags=["x"], fine_tune={"distill": {"weight": 0.3}})

    assert JobSpec.model_validate_json(made.model_dump_json()) == made


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError):
        spec().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("missing", ["model", "data"])
def test_refuses_a_spec_without_what_it_needs(missing: str):
    rest = {name: value for name, value in LEAST.items() if name != missing}

    assert list(refusals(rest)) == [missing]


OUT_OF_BOUNDS = [
    ({"seed": -1}, "seed"),
    ({"seed": 2**31}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"tags": ["-x"]}, "tags.0"),
    ({"tags": ["x" * 65]}, "tags.0"),
    ({"tags": ["x"] * 17}, "tags"),
    ({"metadata": {"-a": "b"}}, "metadata.-a.[key]"),
    ({"metadata": {"a": "b" * 513}}, "metadata.a"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata"),
    ({"data": {**DATA, "max_length": 0}}, "data.max_length"),
    ({"data": {**DATA, "max_length": 8193}}, "data.max_length"),
    ({"data": {**DATA, "max_train_samples": 0}}, "data.max_train_samples"),
    ({"data": {**DATA, "label_column": "x" * 129}}, "data.label_column"),
    ({"fine_tune": {"epochs": -1}}, "fine_tune.epochs"),
    ({"fine_tune": {"epochs": 1001}}, "fine_tune.epochs"),
    ({"fine_tune": {"final_epochs": -1}}, "fine_tune.final_epochs"),
    ({"fine_tune": {"batch_size": 0}}, "fine_tune.batch_size"),
    ({"fine_tune": {"max_grad_norm": 0}}, "fine_tune.max_grad_norm"),
    ({"fine_tune": {"label_smoothing": 1}}, "fine_tune.label_smoothing"),
    ({"fine_tune": {"precision": "int4"}}, "fine_tune.precision"),
    ({"fine_tune": {"patience": 0}}, "fine_tune.patience"),
    ({"fine_tune": {"lr_schedule": {"kind": "magic"}}}, "fine_tune.lr_schedule.kind"),
    ({"fine_tune": {"lr_schedule": {"warmup": 1}}}, "fine_tune.lr_schedule.warmup"),
    ({"fine_tune": {"distill": {"weight": 0}}}, "fine_tune.distill.weight"),
    ({"fine_tune": {"distill": {"temperature": 101}}}, "fine_tune.distill.temperature"),
    ({"fine_tune": {"optimizer": {"kind": "sgd", "lr": 0}}}, "fine_tune.optimizer.sgd.lr"),
    ({"fine_tune": {"optimizer": {"kind": "sgd", "momentum": 1}}}, "fine_tune.optimizer.sgd.momentum"),
    ({"fine_tune": {"optimizer": {"kind": "adamw", "lr": 2}}}, "fine_tune.optimizer.adamw.lr"),
    ({"fine_tune": {"optimizer": {"kind": "lion"}}}, "fine_tune.optimizer"),
    ({"placement": {"device": "tpu"}}, "placement.device"),
    ({"placement": {"priority": 10}}, "placement.priority"),
    ({"placement": {"priority": -1}}, "placement.priority"),
    ({"budget": {"wall_time_s": 0}}, "budget.wall_time_s"),
    ({"budget": {"wall_time_s": 30 * 86_400 + 1}}, "budget.wall_time_s"),
    ({"budget": {"max_rounds": 0}}, "budget.max_rounds"),
    ({"budget": {"start_within_s": 0}}, "budget.start_within_s"),
    ({"retry": {"max_recoveries": -1}}, "retry.max_recoveries"),
    ({"retry": {"max_recoveries": 101}}, "retry.max_recoveries"),
    ({"benchmark": {"batch_sizes": []}}, "benchmark.batch_sizes"),
    ({"benchmark": {"batch_sizes": [0]}}, "benchmark.batch_sizes.0"),
    ({"benchmark": {"batch_sizes": [1] * 9}}, "benchmark.batch_sizes"),
    ({"benchmark": {"rounds": 4}}, "benchmark.rounds"),
    ({"benchmark": {"round_seconds": 0}}, "benchmark.round_seconds"),
    ({"benchmark": {"warmup_seconds": 61}}, "benchmark.warmup_seconds"),
    ({"export": []}, "export"),
    ({"export": ["tflite"]}, "export.0"),
]


@pytest.mark.parametrize(("change", "place"), OUT_OF_BOUNDS)
def test_refuses_what_is_out_of_bounds(change: dict[str, Any], place: str):
    assert next(iter(refusals({**LEAST, **change}))) == place


@pytest.mark.parametrize(
    "place",
    [
        *(
            "",
            "model",
            "data",
            "goal",
            "floor",
            "method",
            "method.criterion",
            "method.allocation",
            "schedule",
        ),
        *("fine_tune", "fine_tune.optimizer", "fine_tune.lr_schedule", "fine_tune.distill"),
        *("quantize", "benchmark", "placement", "budget", "retry"),
    ],
)
def test_refuses_an_unknown_field_at_every_level(place: str):
    value = spec(fine_tune={"distill": {}}).model_dump(mode="json", exclude_none=True)
    inner = value
    for part in filter(None, place.split(".")):
        inner = inner[part]
    inner["colour"] = "red"

    (found,) = refusals(value).items()

    assert found[0].endswith("colour")
    assert "not permitted" in found[1]


NOT_YET = [
    ({"webhook": {"url": "https://example.org"}}, "event stream"),
    ({"retention": {"days": 3}}, "DELETE /v1/jobs"),
    ({"export": ["safetensors", "tensorrt"]}, "'onnx'"),
    ({"benchmark": {"backend": "tensorrt"}}, "use 'onnxruntime'"),
    ({"benchmark": {"backend": "torch"}}, "use 'onnxruntime'"),
    ({"benchmark": {"precision": "fp16"}}, "use 'fp32'"),
    ({"benchmark": {"precision": "int8"}}, "use 'fp32'"),
]


@pytest.mark.parametrize(("change", "remedy"), NOT_YET)
def test_refuses_what_is_not_delivered_yet_with_a_remedy(change: dict[str, Any], remedy: str):
    message = next(iter(refusals({**LEAST, **change}).values()))

    assert "not available in this version" in message
    assert remedy in message


def test_all_three_files_can_be_asked_for():
    assert spec(export=["safetensors", "onnx", "torch_export"]).export[2] == "torch_export"


def test_refuses_an_export_without_the_result():
    assert "must contain 'safetensors'" in refusals({**LEAST, "export": ["onnx"]})[""]


def test_refuses_a_benchmark_without_the_file_that_it_runs():
    assert "add 'onnx'" in refusals({**LEAST, "export": ["safetensors"]})[""]
    assert spec(export=["safetensors"], benchmark={"backend": "none"})


def test_a_text_model_is_fine_tuned_with_adamw_unless_the_spec_says_otherwise():
    text = {**DATA, "task": "text-classification"}

    assert spec(data=text).fine_tune.optimizer.kind == "adamw"
    assert spec(data=text, fine_tune={"epochs": 3}).fine_tune.optimizer.kind == "adamw"
    assert spec(data=text, fine_tune={"optimizer": {"kind": "sgd"}}).fine_tune.optimizer.kind == "sgd"
    assert spec().fine_tune.optimizer.kind == "sgd"


def test_the_input_column_follows_the_task():
    assert spec().data.input_name == "image"
    assert spec(data={**DATA, "task": "text-classification"}).data.input_name == "text"
    assert spec(data={**DATA, "input_column": "pixels"}).data.input_name == "pixels"


def test_the_budget_caps_the_rounds():
    assert spec(budget={"max_rounds": 2}).rounds_in_all() == 2
    assert spec(budget={"max_rounds": 9}).rounds_in_all() == 5
    assert spec(schedule={"kind": "one_shot"}).rounds_in_all() == 1


def test_final_epochs_come_on_top_in_the_last_round():
    tune = spec(fine_tune={"epochs": 2, "final_epochs": 3}).fine_tune

    assert [tune.epochs_of(number, 3) for number in (1, 2, 3)] == [2, 2, 5]


@pytest.mark.parametrize(
    "patch", [{"seed": 1}, {"priority": 10}, {"priority": -1}, {"tags": ["x"] * 17}, {"tags": ["?"]}]
)
def test_a_patch_changes_tags_and_priority_only(patch: dict[str, Any]):
    assert JobPatch.model_validate({"tags": ["a"], "priority": 9})

    with pytest.raises(ValidationError):
        JobPatch.model_validate(patch)


STRUCTURED = {"pattern": "structured"}
TWO_OF_FOUR = {"pattern": "semi_structured"}
AGREE = [
    ({"goal": {"macs": 0.5}}, "needs pattern 'structured'"),
    ({"goal": {"sparsity": 0.5}, "method": STRUCTURED}, "give goal.params, macs"),
    ({"goal": {"heads": 0.5}, "method": {**STRUCTURED, "units": ["channels"]}}, "'heads' in method.units"),
    ({"goal": {"sparsity": 0.7}, "method": TWO_OF_FOUR}, "set goal.sparsity to 0.5"),
    ({"goal": None, "method": TWO_OF_FOUR}, "one sparsity only"),
    ({"schedule": {"kind": "search"}}, "takes no goal"),
    ({"goal": None, "schedule": {"kind": "iterative"}}, "give a goal, or schedule 'search'"),
    (
        {"data": {**EXAMPLE["data"], "task": "regression"}, "fine_tune": {"label_smoothing": 0.1}},
        "no classes to smooth",
    ),
    ({"recipe": "auto"}, "recipe 'auto' chooses goal itself"),
    ({"recipe": "auto", "goal": None, "method": TWO_OF_FOUR}, "chooses method itself"),
    (
        {"recipe": "auto", "goal": None, "export": ["safetensors"], "benchmark": {"backend": "none"}},
        "add 'onnx' to export",
    ),
    ({"recipe": "auto", "goal": None, "fine_tune": {"regrow": {}}}, "leave out fine_tune.regrow"),
    ({"goal": None, "fine_tune": {"final_epochs": 2}}, "leave out fine_tune.final_epochs"),
    (
        {"schedule": {"kind": "gradual"}, "method": {"allocation": {"kind": "sensitivity"}}},
        "use allocation 'erk'",
    ),
    ({"goal": {"size": 0.5}, "schedule": {"kind": "gradual"}}, "use goal 'sparsity'"),
    (
        {
            "goal": {"sparsity": 0.5},
            "method": {**TWO_OF_FOUR, "permute": True},
            "fine_tune": {"distill": {"hidden_weight": 1.0, "hidden_layers": ["layer?"]}},
        },
        "leave out method.permute",
    ),
    ({"schedule": {"kind": "gradual"}, "fine_tune": {"epochs": 0}}, "set fine_tune.epochs"),
    ({"schedule": {"kind": "gradual"}, "method": {"criterion": {"kind": "taylor"}}}, "'iterative'"),
    ({"method": {"criterion": {"kind": "movement"}}}, "use schedule 'gradual'"),
    (
        {"quantize": {"kind": "int8_static"}, "export": ["safetensors"], "benchmark": {"backend": "none"}},
        "add 'onnx' to export",
    ),
]


@pytest.mark.parametrize(("change", "remedy"), AGREE)
def test_refuses_parts_that_do_not_agree_with_a_remedy(change: dict[str, Any], remedy: str):
    assert remedy in next(iter(refusals({**LEAST, **change}).values()))


def test_no_goal_means_a_search_for_the_most_that_the_floor_allows():
    made = spec(goal=None)

    assert made.schedule.kind == "search"
    assert made.next_share([]) == 0.5
    assert "as the floor allows" in made.goal_in_words()


def test_a_pattern_of_n_of_m_is_made_at_once_by_default():
    made = spec(goal={"sparsity": 0.5}, method=TWO_OF_FOUR)

    assert made.schedule.kind == "one_shot"
    assert made.next_share([]) == 0.5


@pytest.mark.parametrize(
    "change",
    [{"recipe": "auto", "goal": None}, {"goal": None}, {"goal": {"macs": 0.5}, "method": STRUCTURED}],
)
def test_a_spec_with_what_was_filled_in_is_the_same_spec(change: dict[str, Any]):
    made = spec(**change)

    assert JobSpec.model_validate(made.model_dump(mode="json")) == made
