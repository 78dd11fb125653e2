"""The OpenAPI document: FastAPI's, with errors as problems."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from schemas.wire import PROBLEM_JSON

DESCRIPTION = """
Prunes neural networks: submit a spec, and workers prune, fine-tune, export and benchmark the model.

Errors are problems ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)) with a `code` for programs and the
`request_id` under which the logs know the request. Lists are paged: `?limit=20&after=ID`.
"""
TAGS = [
    {"name": "jobs", "description": "Submit, follow and steer jobs."},
    {"name": "results", "description": "What a job did and made."},
    {"name": "models", "description": "What lies in S3, told without loading it."},
    {"name": "fleet", "description": "Workers and queues."},
    {"name": "schemas", "description": "JSON schemas with defaults."},
    {"name": "operations", "description": "Health and metrics."},
]


def install(app: FastAPI) -> None:
    """Make `app.openapi()` and `/openapi.json` answer our document, built once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, tags=TAGS
    )
    for operation in (one for path in made["paths"].values() for one in path.values()):
        for response in operation["responses"].values():
            _as_problem(response.get("content", {}))
        for parameter in operation.get("parameters", ()):
            if parameter["schema"].get("type") == "object":
                parameter.update(style="deepObject", explode=True)  # metadata[key]=value
    return made


def _as_problem(content: dict[str, Any]) -> None:
    """FastAPI documents an error under the media type of the route's success."""
    for media_type, shape in list(content.items()):
        if shape.get("schema", {}).get("$ref") == "#/components/schemas/Problem":
            content[PROBLEM_JSON] = content.pop(media_type)
