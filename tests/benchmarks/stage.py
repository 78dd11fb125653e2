"""Servers of their own for a benchmark: Valkey, SeaweedFS and settings, all gone afterwards."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.dev.seaweedfs import start_seaweedfs
from service.dev.valkey import start_valkey
from service.settings import Settings, for_celery, with_database
from tests.servers import ACCESS_KEY, SECRET_KEY, valkey_binary

BUCKETS = ["secateur", "zoo", "data"]


@contextmanager
def stage() -> Iterator[tuple[Settings, Path]]:
    """Settings of a whole installation, and a scratch folder."""
    os.environ.update(AWS_ACCESS_KEY_ID=ACCESS_KEY, AWS_SECRET_ACCESS_KEY=SECRET_KEY)
    with tempfile.TemporaryDirectory(prefix="secateur-bench-") as name:
        folder = Path(name)
        for part in ("valkey", "s3"):
            (folder / part).mkdir()
        redis = start_valkey(folder / "valkey", valkey_binary())
        s3 = start_seaweedfs(folder / "s3", ACCESS_KEY, SECRET_KEY, BUCKETS)
        try:
            yield (
                Settings(
                    redis_url=redis.url,
                    broker_url=for_celery(with_database(redis.url, 1)),
                    s3_endpoint_url=s3.url,
                    cache_dir=folder / "cache",
                ),
                folder,
            )
        finally:
            s3.stop()
            redis.stop()
