"""How an engine is run and timed, on a device that only notes what it is asked."""

import numpy as np
import pytest

from tests.unit.benchmark.tensorrt.fake import Told, fake_torch, fake_trt
from workers.benchmark.tensorrt.execution import Execution, RunFailed

SHAPES = {"x": (4, 3)}


def execution(told: Told) -> Execution:
    return Execution(fake_trt(told), fake_torch(told), b"plan", SHAPES)


def test_inferences_are_one_graph():
    told = Told()
    run = execution(told)
    enqueued = told.enqueued

    times = list(run.times(warmup_s=0, seconds=0, fewest=5))

    assert run.uses_graph
    assert len(times) == told.calls.count(("replay",)) == 5
    assert told.enqueued == enqueued
    assert {ms for ms, _ in times} == {1.5}


@pytest.mark.parametrize(
    "told",
    [Told(capture_works=False), Told(enqueue_works=lambda number: number != 2)],
    ids=["torch", "TensorRT"],
)
def test_an_engine_that_no_graph_can_hold_is_enqueued(told: Told):
    run = execution(told)

    times = list(run.times(warmup_s=0, seconds=0, fewest=3))

    assert not run.uses_graph
    assert len(times) == 3
    assert ("replay",) not in told.calls


def test_two_inferences_are_in_flight():
    told = Told()
    run = execution(told)
    told.calls.clear()

    list(run.times(warmup_s=0, seconds=0, fewest=4))

    begun = [call for call in told.calls if call in (("replay",), ("wait",))]
    assert begun[:4] == [("replay",), ("replay",), ("wait",), ("replay",)]


def test_the_warm_up_does_not_count():
    told = Told()
    run = execution(told)

    times = list(run.times(warmup_s=0.02, seconds=0, fewest=1))

    assert len(times) < told.calls.count(("replay",))


def test_every_tensor_has_its_place_on_the_device():
    told = Told()

    execution(told)

    assert [call for call in told.calls if call[0] == "address"] == [("address", "x"), ("address", "y")]


def test_outputs_are_told_by_name():
    outputs = execution(Told()).infer({"x": np.ones(SHAPES["x"], np.float32)})

    assert {name: value.shape for name, value in outputs.items()} == {"y": (4, 3)}


def test_layers_are_profiled_in_runs_of_their_own():
    told = Told()
    run = execution(told)
    before = told.enqueued

    assert run.profile(4) == {"conv": 2.0, "fc": 0.5}
    assert told.enqueued == before + 4


def test_the_inspector_is_asked_for_json():
    assert '"form": "json"' in execution(Told()).inspect()


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (Told(takes_engine=False), "another GPU, driver or version"),
        (Told(has_memory=False), "take a smaller batch"),
        (Told(missing_shapes=("y",)), "shapes of y are not known"),
        (Told(input_shape=(-1, 5)), r"does not take 'x' as \(4, 3\)"),
        (Told(enqueue_works=lambda number: False), "could not enqueue"),
    ],
)
def test_what_does_not_run_says_why(told: Told, why: str):
    with pytest.raises(RunFailed, match=why):
        execution(told)
