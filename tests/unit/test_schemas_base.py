"""Field types that several schemas share, and the statuses."""

from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.base import S3Model, S3Prefix
from schemas.event import Event
from schemas.job import Status
from schemas.problem import Problem
from schemas.wire import SERVED_BY, DeviceClass

PREFIX = TypeAdapter(S3Prefix)
MODEL = TypeAdapter(S3Model)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("s3://zoo/m", "s3://zoo/m/"),
        ("s3://zoo/m/", "s3://zoo/m/"),
        ("s3://zoo/a b/c=1/", "s3://zoo/a b/c=1/"),
        ("s3://zoo", "s3://zoo/"),
        ("s3://zoo/", "s3://zoo/"),
        ("s3://my-bucket.v2/x.y/..z/", "s3://my-bucket.v2/x.y/..z/"),
    ],
)
def test_an_s3_prefix_is_a_folder(given: str, expected: str):
    assert PREFIX.validate_python(given) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "zoo/m",
        "/etc/passwd",
        "http://zoo/m/",
        "file:///m/",
        "S3://zoo/m/",
        "s3://",
        "s3:///m/",
        "s3://Zoo/m/",
        "s3://-zoo/m/",
        "s3://z/m/",
        "s3://" + "z" * 64 + "/",
        "s3://zoo/../secret/",
        "s3://zoo/a/./b/",
        "s3://zoo/a/../../b",
        "s3://zoo//m/",
        "s3://zoo/m//",
        "s3://zoo/%2e%2e/",
        "s3://zoo/a\\b/",
        "s3://zoo/a\n/",
        "s3://zoo/a\x00/",
        "s3://zoo/m/\n",
        "s3://user:pass@zoo/",
        "s3://zoo/?versionId=1",
        "s3://zoo/" + "a" * 1024,
        7,
        None,
    ],
)
def test_refuses_what_is_no_s3_prefix_or_leaves_it(uri: object):
    with pytest.raises(ValidationError):
        PREFIX.validate_python(uri)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("s3://zoo/a/model.pt2", "s3://zoo/a/model.pt2"),
        ("s3://zoo/model.onnx", "s3://zoo/model.onnx"),
        ("s3://zoo/model.pt2/", "s3://zoo/model.pt2/"),
        ("s3://zoo/model.pt", "s3://zoo/model.pt/"),
        ("s3://zoo.onnx", "s3://zoo.onnx/"),
        ("s3://zoo/m", "s3://zoo/m/"),
    ],
)
def test_a_model_is_a_folder_or_one_file(given: str, expected: str):
    assert MODEL.validate_python(given) == expected


@pytest.mark.parametrize(
    "uri", ["s3://zoo/../model.pt2", "model.pt2", "s3://zoo//model.onnx", "s3://zoo/a\n.pt2"]
)
def test_refuses_a_model_file_that_leaves_its_bucket(uri: str):
    with pytest.raises(ValidationError):
        MODEL.validate_python(uri)


def test_statuses_say_whether_they_are_final_and_whether_a_job_may_be_claimed():
    terminal = {status.value for status in Status if status.is_terminal}
    waiting = {status.value for status in Status if status.is_waiting}

    assert terminal == {"succeeded", "failed", "cancelled", "expired"}
    assert waiting == {"queued", "recovering"}


def test_every_device_class_is_served_by_some_worker_and_any_by_all():
    served = {device for classes in SERVED_BY.values() for device in classes}

    assert served == set(DeviceClass)
    assert all(DeviceClass.any in classes for classes in SERVED_BY.values())


def test_readers_ignore_what_a_newer_service_adds():
    now = datetime.now(UTC).isoformat()
    sent = {"id": "evt_1-0", "job": "job_1", "created_at": now, "type": "state", "message": "m", "new": 1}

    assert Event.model_validate(sent).message == "m"


def test_the_example_of_a_problem_is_one():
    (example,) = Problem.model_json_schema()["examples"]

    assert Problem.model_validate(example).code == "invalid_spec"
