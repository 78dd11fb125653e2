"""A job whose model does not fit the worker's memory, through the real session and a real S3."""

from pathlib import Path

import pytest

from schemas.job import FailureClass
from service.store.blobs import Blobs
from tests import tiny
from tests.integration.conftest import Run, order_of, tiny_spec, upload
from workers import host_memory
from workers.messages import FailedMessage


def test_a_model_that_does_not_fit_fails_before_it_is_loaded(
    blobs: Blobs, tmp_path: Path, run_order: Run, monkeypatch: pytest.MonkeyPatch
):
    model = upload(blobs, tiny.resnet(tmp_path / "model"), "zoo/m")
    data = upload(blobs, tiny.image_npz(tmp_path / "data"), "data/d")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 2 kB\nMemAvailable: 1 kB\n")
    monkeypatch.setattr(host_memory, "ROOT", tmp_path)

    link = run_order(order_of(tiny_spec(model, data)))

    end = link.end()
    assert isinstance(end, FailedMessage)
    assert end.failure_class is FailureClass.out_of_memory
    assert "without activations" in end.reason
    assert "0.00 GB are free there: take a worker with more memory" in end.reason
    assert link.step_names() == ["pull"]
