"""Exit codes, and errors as a user should see them: what happened, why, and the remedy."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pydantic import ValidationError

from schemas.problem import FieldError, Problem


class ExitCode(IntEnum):
    """What a script can rely on."""

    ok = 0
    job_failed = 1
    usage = 2
    not_found = 3
    refused = 4
    unavailable = 5
    interrupted = 130

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.ok: "all is well",
    ExitCode.job_failed: "the job failed, expired or was cancelled",
    ExitCode.usage: "wrong usage, or the service finds the spec invalid",
    ExitCode.not_found: "there is no such job, artifact or key",
    ExitCode.refused: "refused: the API key, or a state that forbids it",
    ExitCode.unavailable: "the service cannot be reached, is overloaded, or failed",
    ExitCode.interrupted: "interrupted from the keyboard",
}
EXIT_CODES_HELP = "Exit codes: " + "; ".join(f"{code.value} {code.meaning}" for code in ExitCode) + "."

_BY_STATUS = {401: ExitCode.refused, 403: ExitCode.refused, 404: ExitCode.not_found, 409: ExitCode.refused}
_BY_STATUS |= {410: ExitCode.not_found, 429: ExitCode.unavailable}
_INVALID = 422
_SPEC_REMEDY = "Correct the spec: `GET /v1/schemas/job_spec` describes every field and its bounds."
_REMEDIES = {
    401: "Set SECATEUR_API_KEY to a key that `secateur keys create` printed.",
    403: "Use a key that is allowed to do this: `secateur keys create --allow s3://…/`.",
    404: "`secateur list` shows your jobs, `secateur artifacts ID` the files of one.",
    409: "`secateur show ID` tells how the job stands.",
    429: "Wait a little and try again.",
}


@dataclass
class CliError(Exception):
    """Ends the command: `what` went wrong, `why`, what to do about it, and the exit code."""

    what: str
    code: ExitCode
    why: str = ""
    remedy: str = ""
    problem: Problem | None = None

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why, self.remedy) if part)

    def lines(self) -> list[str]:
        """The message for a person; wrong fields one a line."""
        problem = self.problem
        wrong = problem.errors if problem is not None and problem.status == _INVALID else []
        fields = [f"  {field_name(one.loc)}: {one.msg}" for one in wrong]
        why = [] if fields or not self.why else [self.why]
        return [self.what, *why, *fields, *([self.remedy] if self.remedy else [])]

    def payload(self) -> dict[str, Any]:
        """The message for a program."""
        shown = {"what": self.what, "why": self.why, "remedy": self.remedy, "exit_code": int(self.code)}
        problem = self.problem.model_dump(mode="json") if self.problem else None
        return {"object": "error", **shown, "problem": problem}


def field_name(loc: list[str | int]) -> str:
    """`goal.sparsity` for `["body", "goal", "sparsity"]`."""
    parts = loc[1:] if loc[:1] in (["body"], ["query"], ["path"]) else loc
    return ".".join(str(part) for part in parts) or "the whole"


def refused(what: str, problem: Problem) -> CliError:
    """The error for a problem that the service answered."""
    status = problem.status
    code = _BY_STATUS.get(status, ExitCode.unavailable if status >= 500 else ExitCode.usage)
    remedy = _SPEC_REMEDY if problem.code == "invalid_spec" else _REMEDIES.get(status, "")
    if status >= 500:
        remedy = f"Try again; if it stays, tell the operator the request id {problem.request_id or '(none)'}."
    return CliError(what, code, problem.detail, remedy, problem)


def unreachable(url: str, why: str) -> CliError:
    """The error for a service that does not answer."""
    return CliError(
        f"No answer from {url}.",
        ExitCode.unavailable,
        why,
        "Is it running? Start one with `secateur dev`, or set SECATEUR_URL to where it is.",
    )


def wrong_settings(error: ValidationError) -> CliError:
    """The error for environment variables, or options, that do not fit."""
    fields = [
        FieldError(loc=list(one["loc"]), msg=one["msg"].removeprefix("Value error, "), type=one["type"])
        for one in error.errors(include_url=False, include_input=False)
        if one["type"] != "default_factory_not_called"  # it follows from another error
    ]
    problem = Problem(title="Invalid settings", status=422, code="invalid_settings", detail="", errors=fields)
    return CliError(
        "The settings are not valid.",
        ExitCode.usage,
        remedy="Correct the option or the environment variable of that name.",
        problem=problem,
    )
