"""The whole way through the user's door: HTTP in, a real worker in the middle, checked files out."""

import hashlib
import json
from pathlib import Path

import httpx
import pytest

from service.dev.stack import DATA, ZOO, Stack
from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SPEC = {
    "model": {"uri": f"s3://{ZOO}/tiny/"},
    "data": {"uri": f"s3://{DATA}/tiny/"},
    "goal": {"sparsity": 0.5},
    "floor": {"min_value": 0.0},
    "schedule": {"kind": "iterative", "rounds": 2},
    "fine_tune": {"batch_size": 32},
    "benchmark": {"batch_sizes": [1], "rounds": 5, "round_seconds": 0.01, "warmup_seconds": 0.0},
}


def put(stack: Stack, folder: Path, bucket: str) -> None:
    for path in folder.iterdir():
        stack.s3().upload_file(str(path), bucket, f"tiny/{path.name}")


def end_of(client: httpx.Client, id: str) -> dict:
    """The job once its event stream has ended."""
    with client.stream(
        "GET", f"/v1/jobs/{id}/events", headers={"Accept": "text/event-stream"}, timeout=300
    ) as events:
        for _ in events.iter_lines():
            pass
    return client.get(f"/v1/jobs/{id}").json()


def test_a_spec_goes_in_and_checked_artifacts_come_out(tmp_path: Path):
    with Stack(tmp_path / "stack", env={"SECATEUR_THREADS": "1"}) as stack:
        put(stack, tiny.resnet(tmp_path / "model"), ZOO)
        put(stack, tiny.image_npz(tmp_path / "data"), DATA)
        auth = {"Authorization": f"Bearer {stack.key}"}
        with httpx.Client(base_url=stack.url, headers=auth, timeout=30) as client:
            created = client.post("/v1/jobs", json=SPEC)
            bad = client.post("/v1/jobs", json={**SPEC, "model": {"uri": f"s3://{ZOO}/nowhere/"}})
            assert created.status_code == bad.status_code == 201

            good_job, bad_job = end_of(client, created.json()["id"]), end_of(client, bad.json()["id"])

            assert good_job["status"] == "succeeded", good_job
            assert bad_job["status"] == "failed"
            assert bad_job["failure_class"] == "storage"
            assert "nowhere" in bad_job["status_reason"]
            artifacts = client.get(f"/v1/jobs/{good_job['id']}/artifacts").json()["data"]
            names = {one["name"] for one in artifacts}
            assert names >= {"model.safetensors", "config.json", "model.onnx", "report.json", "report.html"}
            for one in artifacts:
                file = client.get(
                    f"/v1/jobs/{good_job['id']}/artifacts/{one['name']}", follow_redirects=False
                )
                data = httpx.get(file.headers["location"]).content
                assert hashlib.sha256(data).hexdigest() == one["sha256"]
            report = client.get(f"/v1/jobs/{good_job['id']}/report").json()
            assert report["goal_reached"]
            assert [one["number"] for one in report["rounds"]] == [1, 2]
            log = client.get(f"/v1/jobs/{bad_job['id']}/logs").text
            assert "Traceback" in log
            assert "Traceback" not in json.dumps(bad_job)
