"""Metrics from packages of an operator: found by name, made, refused with both sides named."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from schemas.fleet import Worker
from schemas.job import FailureClass
from schemas.job_spec import JobSpec
from schemas.refs import DataRef
from schemas.task import Task
from service.cli.tables import workers_table
from service.plugins import plugin_warnings
from service.zoo.config import describe
from tests import tiny
from tests.plugins import package
from tests.unit.cli.test_cli_shown import shown
from workers.child import _failure
from workers.errors import DataError, ModelError
from workers.models.load import load_model
from workers.plugins import TASKS, installed
from workers.tasks.plugin import plugin_kind

HEAD = "from workers.tasks.classification import Classification\nfrom schemas.task import Task\n"
TAKES_TASK = HEAD + "class Mine(Classification):\n    metric_name = 'my metric'"
INSTANCE = TAKES_TASK + "\nMine = Mine(Task.text_classification)"
IMAGES = Task.image_classification


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str) -> None:
    monkeypatch.syspath_prepend(package(tmp_path / module, module, code, tasks="mine:Mine"))


def spec(**data: object) -> JobSpec:
    return JobSpec.model_validate(
        {"model": {"uri": "s3://zoo/m/"}, "data": {"uri": "s3://data/d/", **data}, "goal": {"sparsity": 0.5}}
    )


def worker(**fields: object) -> Worker:
    now = datetime.now(UTC)
    stated = {"id": "w1", "hostname": "h", "version": "0", "device": "cpu", "device_name": "cpu", "slots": 1}
    return Worker.model_validate(
        {**stated, "serves": ["cpu", "any"], "busy": 0, "started_at": now, "seen_at": now, **fields}
    )


def test_its_metric_stands_in_the_place_of_the_tasks(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "takes_task", TAKES_TASK)

    model = load_model(tiny.resnet(tmp_path / "m"), IMAGES, plugin="mine")

    assert (model.kind.metric_name, model.kind.task) == ("my metric", IMAGES)


def test_an_instance_of_another_task_is_refused_with_both_named(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "instance", INSTANCE)

    assert plugin_kind("mine", Task.text_classification).metric_name == "my metric"
    with pytest.raises(
        DataError, match=r"'mine' of instance 1\.2 is for task 'text-classification'.*'image-"
    ):
        plugin_kind("mine", IMAGES)


@pytest.mark.parametrize(
    ("module", "code", "says"),
    [
        ("no_kind", "Mine = 3", "no subclass or instance of workers.tasks.kind.Kind.*it is int"),
        (
            "wants_more",
            HEAD + "class Mine(Classification):\n def __init__(self, a): pass",
            "missing 1 required",
        ),
        ("breaks", "1 / 0", r"of breaks 1\.2 cannot be imported \(ZeroDivisionError"),
    ],
)
def test_a_package_that_fails_is_refused_with_the_reason(module, code, says, tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, module, code)

    with pytest.raises(ModelError, match=says):
        plugin_kind("mine", IMAGES)


def test_an_unknown_plugin_is_told_what_there_is(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "never_read", "raise RuntimeError")

    with pytest.raises(DataError, match=r"there is no 'other', this worker has the plug-ins 'mine'"):
        plugin_kind("other", IMAGES)


def test_what_a_plugin_raises_while_it_runs_is_told_as_its_own(tmp_path, monkeypatch):
    code = TAKES_TASK + "\n    def loss(self, scores, labels, *, label_smoothing=0.0): return labels.nothing"
    install(tmp_path, monkeypatch, "raises_late", code)

    with pytest.raises(AttributeError) as caught:
        plugin_kind("mine", IMAGES).loss(torch.zeros(1, 2), torch.zeros(1))
    ours = _failure(AttributeError("nowhere"))
    theirs = _failure(caught.value)

    assert "a defect of the service" in ours.reason
    assert "plug-in package raises-late 1.2 failed (AttributeError: " in theirs.reason
    assert theirs.failure_class is FailureClass.model


def test_names_are_told_without_an_import(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "not_yet", "raise RuntimeError")

    assert installed(TASKS) == ["mine"]


@pytest.mark.parametrize("name", ["os.path", "a:b", "../a", "A", "", "a" * 65])
def test_a_spec_takes_names_only(name):
    with pytest.raises(ValidationError):
        DataRef(uri="s3://data/d/", plugin=name)


def test_synthetic_data_has_a_metric_of_its_own():
    with pytest.raises(ValidationError, match=r"leave out data\.plugin"):
        DataRef(synthetic=True, plugin="mine")


def test_a_spec_is_warned_where_workers_lack_its_plugin():
    has, lacks = worker(id="w2", task_plugins=["mine"]), worker()

    assert plugin_warnings([lacks], spec()) == []
    assert plugin_warnings([has], spec(plugin="mine")) == []
    assert "1 of 2 workers lack 'mine'" in plugin_warnings([has, lacks], spec(plugin="mine"))[0]
    assert (
        "no worker that serves 'any' has 'other': they have 'mine'"
        in (plugin_warnings([has], spec(plugin="other"))[0])
    )


def test_workers_show_their_plugins():
    text = shown(workers_table([worker(model_plugins=["my-net"], task_plugins=["mine"])]), width=300)

    assert "my-net, mine" in text


def test_a_folder_of_a_workers_library_is_readable():
    content = json.dumps({"library_name": "my-net", "architecture": "small"}).encode()

    found = describe(content, ["my-net"])

    assert (found.library, found.architecture, found.tasks, found.reason) == ("my-net", "small", (), None)
    assert describe(content, ["another"]).reason is not None
