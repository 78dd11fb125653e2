"""Every method of the engine as a whole job: from the order to the files, on tiny real models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from schemas.report import Report
from service.store.blobs import Blobs
from tests import tiny
from tests.integration.conftest import Run, order_of, tiny_spec, upload
from tests.integration.test_session import result
from tests.memory_link import MemoryLink
from workers.messages import FailedMessage
from workers.pruning.nm import holds

ONE_SHOT = {"schedule": {"kind": "one_shot"}}
GRADUAL = {"schedule": {"kind": "gradual", "every_steps": 2}}
HALF = {"goal": {"sparsity": 0.5}}
STRUCTURED = {"pattern": "structured", "round_to": 1}

UNSTRUCTURED: dict[str, dict[str, Any]] = {
    **{
        kind: {"method": {"criterion": {"kind": kind, "samples": 64}}}
        for kind in ("taylor", "snip", "fisher", "hessian", "sparsegpt", "wanda")
    },
    "movement": {"method": {"criterion": {"kind": "movement"}}, **GRADUAL},
    "gradual": GRADUAL,
    "erk": {"method": {"allocation": {"kind": "erk"}}},
    "lamp": {"method": {"allocation": {"kind": "lamp"}}},
    "sensitivity": {"method": {"allocation": {"kind": "sensitivity", "shares": [0.3, 0.6], "samples": 64}}},
    "cap": {"method": {"allocation": {"kind": "global", "cap": 0.6}}},
    "overrides": {"method": {"overrides": {"*embedder*": 0.0}}},
    "regrow": {"fine_tune": {"epochs": 1, "batch_size": 32, "regrow": {"every_steps": 2}}},
    "average": {"fine_tune": {"epochs": 1, "batch_size": 32, "average": {"kind": "ema"}}},
}


@pytest.fixture
def image_uris(blobs: Blobs, tmp_path: Path) -> tuple[str, str]:
    model = upload(blobs, tiny.resnet(tmp_path / "model"), "zoo/m")
    return model, upload(blobs, tiny.image_npz(tmp_path / "data", train=96, validation=64), "data/d")


@pytest.fixture
def text_uris(blobs: Blobs, tmp_path: Path) -> tuple[str, str]:
    model = upload(blobs, tiny.bert(tmp_path / "model"), "zoo/bert")
    return model, upload(blobs, tiny.text_parquet(tmp_path / "data", train=96, validation=64), "data/text")


def report_of(folder: Path) -> Report:
    return Report.model_validate_json((folder / "report.json").read_text())


@pytest.mark.parametrize("name", list(UNSTRUCTURED))
def test_a_job_reaches_exactly_its_sparsity_by(
    name: str, blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    spec = tiny_spec(*image_uris, **{**HALF, **ONE_SHOT, **UNSTRUCTURED[name]})

    folder = result(blobs, run_order(order_of(spec)), tmp_path / "out")

    report = report_of(folder)
    pruned = [layer for layer in report.layers if layer.pruned]
    zeros, weights = sum(one.zeros for one in pruned), sum(one.weights for one in pruned)
    assert abs(zeros - 0.5 * weights) <= 1
    assert report.goal_reached
    assert bool(report.curves) == (name == "sensitivity")


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt", "taylor"])
@pytest.mark.parametrize("permute", [False, True])
def test_two_of_four_hold_in_the_file_that_comes_out(
    criterion: str, permute: bool, blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    if permute and criterion != "magnitude":
        pytest.skip("the order of channels does not depend on the criterion")
    method = {"pattern": "semi_structured", "criterion": {"kind": criterion}, "permute": permute}
    spec = tiny_spec(*image_uris, goal={"sparsity": 0.5}, method=method, **ONE_SHOT)

    folder = result(blobs, run_order(order_of(spec)), tmp_path / "out")

    report = report_of(folder)
    weights = load_file(folder / "model.safetensors")
    pruned = [layer for layer in report.layers if layer.pruned]
    assert pruned
    for layer in pruned:
        assert holds(weights[f"{layer.name}.weight"], 2, 4, kind=layer.kind)
        assert layer.zeros * 2 == layer.weights
    dense = [layer for layer in report.layers if not layer.pruned]
    assert all("needs a multiple of 4 inputs" in (layer.reason or "") for layer in dense)


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"criterion": {"kind": "bn_scale"}},
        {"criterion": {"kind": "fpgm"}},
        {"criterion": {"kind": "taylor", "samples": 64}},
        {"criterion": {"kind": "fisher", "samples": 64}},
        {"criterion": {"kind": "random"}},
        {"allocation": {"kind": "uniform"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("goal", [{"macs": 0.5}, {"params": 0.5}])
def test_channels_are_gone_from_the_file_that_comes_out(
    method: dict[str, Any],
    goal: dict[str, float],
    blobs: Blobs,
    tmp_path: Path,
    image_uris: tuple[str, str],
    run_order: Run,
):
    if method and "macs" in goal:
        pytest.skip("the search does not depend on the criterion")
    spec = tiny_spec(*image_uris, goal=goal, method={**STRUCTURED, **method})

    folder = result(blobs, run_order(order_of(spec)), tmp_path / "out")

    report = report_of(folder)
    weights = load_file(folder / "model.safetensors")
    assert sum(value.numel() for name, value in weights.items() if "running" not in name) < 0.8 * (
        report.dense.parameters
    )
    assert report.removed == pytest.approx(0.5, abs=0.06)
    assert any(group.after < group.before for group in report.groups)
    assert report.pruned.parameters < report.dense.parameters


def test_a_pruned_model_folder_is_the_model_of_another_job(
    blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    first = tiny_spec(*image_uris, goal={"params": 0.6}, method=STRUCTURED)
    folder = result(blobs, run_order(order_of(first)), tmp_path / "out")
    once = report_of(folder)
    again = upload(blobs, folder, "zoo/pruned")

    second = tiny_spec(again, image_uris[1], goal={"params": 0.7}, method=STRUCTURED)
    folder = result(blobs, run_order(order_of(second, id="job_2")), tmp_path / "again")

    twice = report_of(folder)
    assert twice.dense.parameters == once.pruned.parameters
    assert twice.dense.metric == pytest.approx(once.pruned.metric, abs=1e-6)
    assert twice.pruned.parameters < once.pruned.parameters


@pytest.mark.parametrize("goal", [{"heads": 0.5}, {"neurons": 0.5}])
def test_heads_and_neurons_are_gone_from_a_transformer(
    goal: dict[str, float], blobs: Blobs, tmp_path: Path, text_uris: tuple[str, str], run_order: Run
):
    task = {"task": "text-classification", "max_length": 8}
    spec = tiny_spec(*text_uris, task=task, goal=goal, method={**STRUCTURED, "units": ["heads", "neurons"]})

    folder = result(blobs, run_order(order_of(spec)), tmp_path / "out")

    report = report_of(folder)
    kind = next(iter(goal))
    touched = [group for group in report.groups if group.kind == kind]
    assert touched
    before, after = sum(group.before for group in touched), sum(group.after for group in touched)
    assert after * 2 == before
    assert report.removed == pytest.approx(0.5)


def test_a_structured_job_that_lost_its_worker_ends_with_the_weights_of_an_undisturbed_one(
    blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    from tests.integration.test_session import stop_after_two
    from workers.errors import Stopped

    spec = tiny_spec(
        *image_uris, goal={"macs": 0.5}, method=STRUCTURED, schedule={"kind": "iterative", "rounds": 3}
    )
    undisturbed = result(blobs, run_order(order_of(spec)), tmp_path / "a")
    cut_short = MemoryLink()
    cut_short.commit = stop_after_two(cut_short)  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        run_order(order_of(spec, token="2:b"), cut_short)
    rounds, checkpoint = [round for round, _ in cut_short.commits], cut_short.commits[-1][1]

    link = run_order(order_of(spec, token="3:c", attempt=2, checkpoint=checkpoint, rounds=rounds))

    resumed = result(blobs, link, tmp_path / "b")
    assert (resumed / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()


def test_a_search_finds_a_share_between_the_one_that_held_and_the_one_that_broke(
    blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    search = {"kind": "search", "first": 0.6, "most": 0.98, "resolution": 0.1, "rounds": 5}
    spec = tiny_spec(
        *image_uris,
        goal=None,
        schedule=search,
        floor={"max_drop": 0.1},
        fine_tune={"epochs": 2, "batch_size": 32},
    )

    folder = result(blobs, run_order(order_of(spec)), tmp_path / "out")

    report = report_of(folder)
    held = [one for one in report.rounds if one.held]
    assert report.removed == max(one.sparsity for one in held)
    assert report.verdict.startswith("The most that")
    weights = load_file(folder / "model.safetensors")
    zeros = sum(int((weights[f"{layer.name}.weight"] == 0).sum()) for layer in report.layers if layer.pruned)
    total = sum(layer.weights for layer in report.layers if layer.pruned)
    assert zeros / total == pytest.approx(report.removed, abs=1e-3)


def test_a_goal_in_size_is_met_by_zeros(
    blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    spec = tiny_spec(*image_uris, goal={"size": 0.5}, fine_tune={"epochs": 0}, **ONE_SHOT)

    report = report_of(result(blobs, run_order(order_of(spec)), tmp_path / "out"))

    assert report.removed == pytest.approx(0.5, abs=0.03)
    assert report.pruned.compressed_bytes < 0.55 * report.dense.compressed_bytes


def test_the_recipe_auto_decides_prunes_quantizes_and_says_why(
    blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    spec = tiny_spec(
        *image_uris,
        recipe="auto",
        goal=None,
        schedule={"kind": "iterative"},
        export=["safetensors", "onnx"],
        floor={"max_drop": 0.5},
    )

    link = run_order(order_of(spec))

    folder = result(blobs, link, tmp_path / "out")
    report = report_of(folder)
    assert "explore" in link.step_names()
    assert len(report.decisions) == 4
    assert "sweet spot" in report.decisions[1]
    assert [stage.name for stage in report.stages] == ["dense", "pruned", "quantized"]
    assert report.pruned.parameters < report.dense.parameters
    assert (folder / "model.int8.onnx").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"goal": {"heads": 0.5}, "method": {**STRUCTURED, "units": ["heads"]}}, "head"),
        ({"method": {"exclude": ["*"]}}, "method"),
        ({"goal": {"macs": 0.5}, "method": {**STRUCTURED, "exclude": ["*"]}}, "exclude"),
        ({"method": {"overrides": {"nothing": 0.5}}}, "nothing"),
    ],
)
def test_what_cannot_work_with_this_model_is_refused_before_any_training(
    change: dict[str, Any], told: str, blobs: Blobs, image_uris: tuple[str, str], run_order: Run
):
    link = run_order(order_of(tiny_spec(*image_uris, **change)))

    end = link.end()
    assert isinstance(end, FailedMessage), end
    assert end.failure_class.value == "preflight"
    assert told in end.reason
    assert "prune#1" not in link.step_names()


def test_quantization_keeps_the_zeros_and_reports_each_stage(
    blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    spec = tiny_spec(
        *image_uris,
        quantize={"kind": "int8_static", "samples": 32},
        export=["safetensors", "onnx"],
        **ONE_SHOT,
    )

    folder = result(blobs, run_order(order_of(spec)), tmp_path / "out")

    report = report_of(folder)
    assert [stage.name for stage in report.stages] == ["dense", "pruned", "quantized"]
    assert (folder / "model.int8.onnx").stat().st_size < (folder / "model.onnx").stat().st_size
    assert "0 zeros were lost" in (report.stages[-1].note or "")


def test_two_of_four_hold_after_quantization_and_the_report_says_so(
    blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    spec = tiny_spec(
        *image_uris,
        method={"pattern": "semi_structured"},
        quantize={"kind": "int8_static", "samples": 32},
        export=["safetensors", "onnx"],
        fine_tune={"epochs": 0},
        **ONE_SHOT,
    )

    report = report_of(result(blobs, run_order(order_of(spec)), tmp_path / "out"))

    assert "2:4 holds in all" in (report.stages[-1].note or "")


def test_clustered_weights_share_few_values(
    blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    spec = tiny_spec(*image_uris, quantize={"kind": "cluster", "k": 16}, **ONE_SHOT)

    folder = result(blobs, run_order(order_of(spec)), tmp_path / "out")

    report = report_of(folder)
    weights = load_file(folder / "model.clustered.safetensors")
    for layer in report.layers:
        values = torch.unique(weights[f"{layer.name}.weight"])
        assert len(values[values != 0]) <= 16
    assert report.stages[-1].compressed_bytes < report.stages[-2].compressed_bytes
