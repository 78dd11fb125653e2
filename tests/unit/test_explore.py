"""Recipe `auto`: what it measures and what it decides."""

import pytest
import torch

from schemas.job_spec import JobSpec
from schemas.report import Curve
from tests.jobs import spec
from tests.unit.pruning.small import loaded, small_bundle, small_module
from workers.errors import Stopped
from workers.explore import MODEL_SHARES, explore, sweet_spot
from workers.models.loaded import LoadedModel
from workers.pruning.calibration import Calibration
from workers.pruning.layers import prunable_layers

EXAMPLE = {"pixel_values": torch.zeros(2, 1, 6, 6)}


def auto(**changes: object) -> JobSpec:
    return spec(recipe="auto", goal=None, **changes)


def taught() -> LoadedModel:
    """A model that has learned its task."""
    from tests.unit.training.runs import train
    from workers.pruning.layers import Choice

    model = loaded(small_module())
    train(model, Choice((), {}), epochs=8)
    return model


def found(model: LoadedModel, floor: float, wanted: JobSpec | None = None):
    calibration = Calibration(model, small_bundle(), 0, 32, lambda: None)
    return explore(wanted or auto(), calibration, 1.0, floor, EXAMPLE, on_share=lambda _: None)


@pytest.mark.parametrize(
    ("metrics", "least", "share"),
    [
        ([0.9, 0.9, 0.5], 0.8, 0.5),
        ([0.9, 0.7, 0.9], 0.8, 0.3),
        ([0.5, 0.5, 0.5], 0.8, 0.3),
        ([0.9, 0.9, 0.9], 0.8, 0.7),
    ],
)
def test_the_sweet_spot_is_the_last_share_before_the_curve_falls_below(
    metrics: list[float], least: float, share: float
):
    assert sweet_spot(Curve(name="*", shares=[0.3, 0.5, 0.7], metrics=metrics), least) == share


def test_decides_a_structured_job_with_quantization_and_says_why():
    made = found(taught(), floor=0.8)

    assert made.spec.recipe is None
    assert made.spec.method.pattern == "structured"
    assert made.spec.quantize.kind == "int8_static"
    assert made.spec.goal is not None
    assert made.spec.goal.name == "params"
    assert [curve.name for curve in made.curves] == ["0", "3", "8", "*"]
    assert made.curves[-1].shares == list(MODEL_SHARES)
    assert "sweet spot" in made.decisions[1]
    assert "no fixed scales" not in made.decisions[3]


def test_the_model_is_as_before_and_the_decision_the_same_each_time():
    model = taught()
    before = [layer.weight.detach().clone() for layer in prunable_layers(model.module)]

    first, second = found(model, floor=0.8), found(model, floor=0.8)

    assert first == second
    for layer, weights in zip(prunable_layers(model.module), before, strict=True):
        assert torch.equal(layer.weight, weights)


@torch.no_grad()
def hang_on_the_smallest_weights(module: torch.nn.Module) -> None:
    """Seven channels stay; the classes hang on them by the smallest 30 % of the last layer's weights."""
    hidden, last = module[3], module[8]
    gone = last.weight.abs().sum(dim=0).argsort(descending=True)[7:]
    hidden.weight[gone], hidden.bias[gone] = 0.0, 0.0
    last.weight[:, gone] = 1.0
    kept = [channel for channel in range(24) if channel not in gone.tolist()]
    hidden.weight[kept] *= 1000
    hidden.bias[kept] *= 1000
    last.weight[:, kept] /= 1000


def test_a_layer_that_bears_nothing_keeps_its_width():
    model = taught()
    hang_on_the_smallest_weights(model.module)

    made = found(model, floor=0.8)

    firsts = {curve.name: curve.metrics[0] for curve in made.curves[:-1]}
    assert [name for name, metric in firsts.items() if metric < 0.75] == ["8"]
    assert made.spec.method.exclude == ("8",)
    assert "8 lose more than may be lost" in made.decisions[0]


def test_where_no_layer_bears_anything_none_is_left_out():
    made = found(taught(), floor=1.1)  # more than the dense model reaches

    assert made.spec.method.exclude == ()
    assert "not one bears" in made.decisions[0]


def test_a_stop_is_heard_while_it_measures():
    def stop() -> None:
        raise Stopped("asked")

    calibration = Calibration(loaded(small_module()), small_bundle(), 0, 32, stop)

    with pytest.raises(Stopped):
        explore(auto(), calibration, 1.0, 0.5, EXAMPLE, on_share=lambda _: None)
