"""Exit codes and messages."""

import pytest
from pydantic import ValidationError

from schemas.problem import FieldError, Problem
from service.cli.errors import EXIT_CODES_HELP, ExitCode, field_name, refused, wrong_settings
from service.settings import Settings


def problem(status: int, code: str = "x", *errors: FieldError) -> Problem:
    return Problem(
        title="t", status=status, code=code, detail="Cause.", errors=list(errors), request_id="req_1"
    )


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, ExitCode.usage),
        (401, ExitCode.refused),
        (403, ExitCode.refused),
        (404, ExitCode.not_found),
        (409, ExitCode.refused),
        (413, ExitCode.usage),
        (422, ExitCode.usage),
        (429, ExitCode.unavailable),
        (500, ExitCode.unavailable),
        (503, ExitCode.unavailable),
    ],
)
def test_each_status_has_its_exit_code(status: int, code: ExitCode):
    assert refused("No.", problem(status)).code is code


def test_the_help_explains_every_exit_code():
    assert all(f"{code.value} {code.meaning}" in EXIT_CODES_HELP for code in ExitCode)


def test_an_invalid_spec_is_told_field_by_field():
    error = FieldError(loc=["body", "goal", "sparsity"], msg="Too large", type="t")

    lines = refused("No.", problem(422, "invalid_spec", error)).lines()

    assert lines[:2] == ["No.", "  goal.sparsity: Too large"]
    assert "/v1/schemas/job_spec" in lines[2]


def test_a_forbidden_uri_is_told_with_what_is_allowed():
    error = FieldError(loc=["body", "model", "uri"], msg="no", type="prefix")

    assert "Cause." in refused("No.", problem(403, "prefix_not_allowed", error)).lines()


def test_a_failure_of_the_service_names_the_request():
    assert "req_1" in refused("No.", problem(500)).remedy


@pytest.mark.parametrize(
    ("loc", "name"),
    [
        (["body", "a", 0, "b"], "a.0.b"),
        (["query", "limit"], "limit"),
        (["body"], "the whole"),
        ([], "the whole"),
    ],
)
def test_a_field_has_the_name_that_the_user_wrote(loc: list[str | int], name: str):
    assert field_name(loc) == name


def test_a_wrong_variable_is_named_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECATEUR_REDIS_URL", "nonsense")
    with pytest.raises(ValidationError) as caught:
        Settings()

    lines = wrong_settings(caught.value).lines()

    assert [line for line in lines if line.startswith("  ")] == [
        "  SECATEUR_REDIS_URL: a Redis URL starts with redis://, rediss:// or unix://"
    ]
