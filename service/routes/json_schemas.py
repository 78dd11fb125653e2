"""The JSON schemas of what users send and get, defaults filled in."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from schemas.artifact import Artifact
from schemas.base import Resource, Spec
from schemas.event import Event
from schemas.fleet import Queue, Worker
from schemas.job import Attempt, Estimate, Job, JobPatch
from schemas.job_spec import JobSpec
from schemas.page import Page
from schemas.problem import Problem
from schemas.report import Report
from schemas.round import Round
from schemas.zoo import ZooModel
from service.errors import NoSuchSchema
from service.routes.responses import problems

router = APIRouter(prefix="/v1/schemas", tags=["schemas"])

_SPECS: dict[str, type[Spec]] = {"job_spec": JobSpec, "job_patch": JobPatch}
_RESOURCES: dict[str, type[Resource]] = {
    "artifact": Artifact,
    "attempt": Attempt,
    "estimate": Estimate,
    "event": Event,
    "job": Job,
    "problem": Problem,
    "queue": Queue,
    "model": ZooModel,
    "report": Report,
    "round": Round,
    "worker": Worker,
}


class _WithFactories(GenerateJsonSchema):
    """pydantic leaves defaults out that a function makes; here they are wanted too."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        factory = schema.get("default_factory")
        if factory is None or schema.get("default_factory_takes_data"):
            return super().get_default_value(schema)
        made = factory()  # type: ignore[call-arg]
        return made.model_dump(mode="json") if isinstance(made, BaseModel) else made


@router.get("", summary="Names of the schemas")
async def list_schemas() -> Page[str]:
    """The names that `GET /v1/schemas/{name}` knows; `job_spec` is what you submit."""
    return Page(data=sorted({*_SPECS, *_RESOURCES}))


@router.get("/{name}", responses=problems(404), summary="A JSON schema")
async def show_schema(name: str) -> dict[str, Any]:
    """The schema, with bounds, descriptions and defaults: enough for an editor to complete a spec."""
    if name in _SPECS:
        return _SPECS[name].model_json_schema(schema_generator=_WithFactories)
    if name in _RESOURCES:
        return _RESOURCES[name].model_json_schema(schema_generator=_WithFactories, mode="serialization")
    raise NoSuchSchema(f"There is no schema '{name}': GET /v1/schemas lists them.")
