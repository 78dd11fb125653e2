"""Servers, buckets and settings for tests. A server starts when the first test asks for it."""

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from service.dev.process import Server, ServerError
from service.dev.seaweedfs import find_weed, start_seaweedfs
from service.dev.valkey import start_valkey
from service.settings import Settings, for_celery, with_database
from service.store.blobs import Blobs
from tests.servers import ACCESS_KEY, S3, SECRET_KEY, absent, redis_binary, valkey_binary


def pytest_configure() -> None:
    """The tracer of torch writes each line it reads at DEBUG: it would bury the log of a failed test."""
    logging.getLogger("torch.__trace").setLevel(logging.WARNING)


# how long an example takes says how busy the machine is, not whether the code is right
hypothesis.settings.register_profile(
    "load", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("load")


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One Valkey for the session."""
    server = start_valkey(tmp_path_factory.mktemp("valkey"), valkey_binary())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One Redis for the session."""
    server = start_valkey(tmp_path_factory.mktemp("redis"), redis_binary())
    yield server
    server.stop()


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """An empty server: Valkey, or what `tests.servers.on_both_servers` asks for."""
    server: Server = request.getfixturevalue(f"{getattr(request, 'param', 'valkey')}_server")
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """One SeaweedFS for the session; boto3 finds its credentials in the environment, as in production."""
    try:
        find_weed()
    except ServerError as error:
        absent("SeaweedFS", str(error))
    server = start_seaweedfs(tmp_path_factory.mktemp("s3"), ACCESS_KEY, SECRET_KEY, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        patch.delenv("AWS_PROFILE", raising=False)
        yield S3(server.url, ACCESS_KEY, SECRET_KEY)
    server.stop()


@pytest.fixture
def bucket(s3: S3) -> Iterator[str]:
    """A fresh bucket."""
    name = f"test-{secrets.token_hex(6)}"
    client = Blobs.connect(Settings(s3_endpoint_url=s3.url)).client
    client.create_bucket(Bucket=name)
    yield name
    client.delete_bucket(Bucket=name)  # SeaweedFS deletes what is in it too


@pytest.fixture
def s3_settings(s3: S3, bucket: str, tmp_path: Path) -> Settings:
    """Settings that know the S3 server and a fresh bucket, but no Redis."""
    return Settings(s3_endpoint_url=s3.url, bucket=bucket, cache_dir=tmp_path / "cache", log_format="console")


@pytest.fixture
def settings(s3_settings: Settings, redis_url: str) -> Settings:
    """Settings of a whole installation on the test servers: empty Redis, fresh bucket, free ports."""
    update = {"redis_url": redis_url, "broker_url": for_celery(with_database(redis_url, 1)), "api_port": 0}
    return s3_settings.model_copy(update=update)


@pytest.fixture
def blobs(s3_settings: Settings) -> Blobs:
    """The store, in a fresh bucket."""
    return Blobs.connect(s3_settings)
