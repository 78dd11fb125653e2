"""The API on real servers, and two tenants that use it. One app for all tests; what they left is removed."""

from collections.abc import Iterator

import pytest
import redis
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.app import create_app
from service.dev.process import Server
from service.settings import Settings
from service.store.blobs import Blobs
from tests.api import Api, bearer, new_key
from tests.jobs import Desk
from tests.servers import S3

BUCKET = "api-tests"


@pytest.fixture(scope="session")
def settings(s3: S3, valkey_server: Server) -> Settings:
    """Settings on the test servers; making a boto3 client for each test would take longer than the test."""
    return Settings(redis_url=valkey_server.url, s3_endpoint_url=s3.url, bucket=BUCKET)


@pytest.fixture(scope="session")
def blobs(settings: Settings) -> Blobs:
    """The service's bucket."""
    blobs = Blobs.connect(settings)
    blobs.client.create_bucket(Bucket=BUCKET)
    return blobs


@pytest.fixture(scope="session")
def app(settings: Settings, blobs: Blobs) -> FastAPI:
    """The application."""
    return create_app(settings)


@pytest.fixture(scope="session")
def _client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def client(_client: TestClient, settings: Settings, blobs: Blobs) -> TestClient:
    """A client without a key, on empty servers."""
    with redis.Redis.from_url(settings.redis_url) as server:
        server.flushall()
    for tenant in ("acme", "rival", "default"):
        blobs.delete_prefix(f"{tenant}/")
    return _client


@pytest.fixture
def acme(app: FastAPI, client: TestClient) -> Api:
    """A tenant."""
    return Api(client, bearer(new_key(app, "acme")))


@pytest.fixture
def rival(app: FastAPI, client: TestClient) -> Api:
    """Another tenant."""
    return Api(client, bearer(new_key(app, "rival")))


@pytest.fixture
def desk(client: TestClient, settings: Settings) -> Desk:
    """The store behind the API, to play the worker."""
    return Desk.on(settings.redis_url)
