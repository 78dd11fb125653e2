"""Errors as `application/problem+json` (RFC 9457)."""

from typing import Any

from pydantic import ConfigDict, Field

from schemas.base import Resource


class FieldError(Resource):
    """One field of the request that is wrong."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(Resource):
    """What went wrong and what to do about it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Content",
                    "status": 422,
                    "code": "invalid_spec",
                    "detail": "goal.sparsity: Input should be less than or equal to 0.999",
                    "errors": [
                        {
                            "loc": ["body", "goal", "sparsity"],
                            "msg": "Input should be less than or equal to 0.999",
                            "type": "less_than_equal",
                        }
                    ],
                    "request_id": "req_3f0c",
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    code: str = Field(description="For programs; never changes its meaning.")
    detail: str = Field(description="For people: the cause and the remedy.")
    errors: list[FieldError] = Field(default_factory=list)
    request_id: str | None = None
    context: dict[str, Any] = Field(default_factory=dict)
