"""A zoo and a data set in the test bucket, and jobs on them in this process."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.job_spec import JobSpec
from service.settings import Settings
from service.store.blobs import Blobs
from tests.memory_link import MemoryLink
from workers.messages import JobOrder

Run = Callable[..., MemoryLink]


def upload(blobs: Blobs, folder: Path, prefix: str) -> str:
    """All files of a folder; returns its URI."""
    for path in folder.rglob("*"):
        if path.is_file():
            blobs.upload_file(path, f"{prefix}/{path.relative_to(folder)}")
    return f"s3://{blobs.bucket}/{prefix}/"


def tiny_spec(model: str, data: str, *, task: dict[str, Any] | None = None, **changes: Any) -> JobSpec:
    """Two quick rounds."""
    spec = {
        "model": {"uri": model},
        "data": {"uri": data, **(task or {})},
        "goal": {"sparsity": 0.5},
        "floor": {"min_value": 0.0},
        "schedule": {"kind": "iterative", "rounds": 2},
        "fine_tune": {"epochs": 1, "batch_size": 32},
        "export": ["safetensors"],
        "benchmark": {"backend": "none", "rounds": 5, "round_seconds": 0.01, "warmup_seconds": 0.0},
    }
    return JobSpec.model_validate({**spec, **changes})


def order_of(spec: JobSpec, **fields: Any) -> JobOrder:
    """The order that a supervisor would give."""
    base = {"id": "job_1", "tenant": "acme", "token": "1:a", "attempt": 1, "device": "cpu", "threads": 1}
    return JobOrder.model_validate({**base, "spec": spec, **fields})


@pytest.fixture
def run_order(s3_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs an order as the child process does, from the order to the last message."""
    from workers import child

    monkeypatch.setenv("SECATEUR_S3_ENDPOINT_URL", s3_settings.s3_endpoint_url or "")
    monkeypatch.setenv("SECATEUR_BUCKET", s3_settings.bucket)
    monkeypatch.setenv("SECATEUR_CACHE_DIR", str(s3_settings.cache_dir))
    assert "AWS_ACCESS_KEY_ID" in os.environ

    def run(order: JobOrder, link: MemoryLink | None = None) -> MemoryLink:
        link = link or MemoryLink()
        child.run(order, link)
        return link

    return run
