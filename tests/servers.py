"""The real servers that tests run on: Valkey, Redis and SeaweedFS, started when the first test asks."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.dev.process import ServerError
from service.dev.valkey import embedded_server

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"

on_both_servers = pytest.mark.parametrize("redis_url", ["valkey", "redis"], indirect=True)
"""Runs a test, or with `pytestmark = on_both_servers` a whole file, on Valkey and on Redis."""


@dataclass(frozen=True)
class S3:
    """An S3 server of the session; its credentials are in the environment while it runs."""

    url: str
    access_key: str
    secret_key: str


def absent(what: str, remedy: str) -> None:
    """A missing server skips the test on a laptop and fails it in CI, where nobody would notice a skip."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"{what} is missing in CI: {remedy}", pytrace=False)
    pytest.skip(f"{what} is missing: {remedy}")


def valkey_binary() -> Path:
    """Valkey: from PATH, else the package's."""
    found = shutil.which("valkey-server")
    if found is not None:
        return Path(found)
    try:
        return embedded_server()
    except ServerError as error:
        absent("valkey-server", str(error))
        raise


def redis_binary() -> Path:
    """Redis itself, from PATH."""
    found = shutil.which("redis-server")
    if found is None:
        absent("redis-server", "sh tests/setup_servers.sh as root, or install it by hand")
    return Path(str(found))
