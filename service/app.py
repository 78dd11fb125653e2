"""The HTTP application: routes, error handlers and middleware around one set of connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from service import openapi, problems
from service.deps import Services
from service.middleware import BodyLimit, Edge
from service.routes import actions, events, fleet, health, jobs, json_schemas, models, results
from service.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The API for these settings. It connects to Redis and S3 when the first request needs them."""
    services = Services.connect(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await services.close()

    app = FastAPI(title="Secateur", version=version("secateur"), lifespan=lifespan, redirect_slashes=False)
    app.state.services = services
    for module in (jobs, actions, events, results, models, fleet, json_schemas, health):
        app.include_router(module.router)
    problems.install(app)
    openapi.install(app)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    app.add_middleware(Edge, metrics=services.metrics)  # added last: it is outside
    return app
