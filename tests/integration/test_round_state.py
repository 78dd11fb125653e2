"""What is kept beside a round's weights."""

from pathlib import Path

import pytest
from torch import nn

from schemas.report import Curve
from service.store.blobs import Blobs
from tests.integration.conftest import order_of, tiny_spec
from workers.checkpoints import STATE, Checkpoints, State


@pytest.fixture
def checkpoints(blobs: Blobs, tmp_path: Path) -> Checkpoints:
    order = order_of(tiny_spec("s3://zoo/m/", "s3://data/d/"))
    return Checkpoints(order, blobs, tmp_path, lambda: None)


def test_an_attempt_that_goes_on_knows_what_the_earlier_one_measured(checkpoints: Checkpoints):
    curve = Curve(name="conv1", shares=[0.5], metrics=[0.8])
    chosen = tiny_spec("s3://zoo/m/", "s3://data/d/", seed=7)
    state = State(spec=chosen, metrics={"top-5": 0.9}, curves=[curve], decisions=["a"], notes=["b"])

    committed = checkpoints.save(nn.Linear(2, 2), None, state, 1, 0.9)

    assert checkpoints.state_of(committed) == state
    assert checkpoints.fetch(committed).state == state


def test_a_round_of_an_older_worker_has_nothing_beside_it(checkpoints: Checkpoints, blobs: Blobs):
    committed = checkpoints.save(nn.Linear(2, 2), None, State(notes=["b"]), 1, 0.9)
    blobs.client.delete_object(Bucket=blobs.bucket, Key=committed.prefix + STATE)

    assert checkpoints.state_of(committed) == State()
    assert checkpoints.fetch(committed).state == State()
