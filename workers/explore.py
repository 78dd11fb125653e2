"""Recipe `auto`: measure what the model bears, and turn that into a spec for a structured job.

The way that practitioners advise: how much each layer bears, how much all layers bear together, the point
where the curve bends, and then channels instead of zeros at the same budget, because zeros are not faster on
most hardware. Nothing here depends on the clock, so another attempt comes to the same decision.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from schemas.job_spec import JobSpec
from schemas.method import Structured, Unstructured
from schemas.report import Curve
from schemas.task import Task
from workers.errors import PreflightError
from workers.evaluate import metric_of
from workers.models.loaded import Batch, LoadedModel
from workers.pruning.calibration import Calibration, drawn
from workers.pruning.cut import cut
from workers.pruning.layers import Choice, Layer, choose, prunable_layers
from workers.pruning.sensitivity import sensitivity_curves
from workers.pruning.structured.graph import DependencyGraph
from workers.pruning.structured.measures import parameters_after
from workers.pruning.structured.plan import choose_groups, plan
from workers.pruning.structured.scores import magnitude
from workers.pruning.structured.trace import trace

LAYER_SHARES = (0.3, 0.5, 0.7, 0.9)
MODEL_SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SAMPLES = 512
STEPS = (8, 4, 2, 1)
"""Multiples that widths are rounded to; small models have no room for large ones."""
LEAST = 0.3
"""Share of the weights that goes where the model bears not even the first share without training."""


@dataclass(frozen=True)
class Found:
    """What was measured, what it came to, and why."""

    spec: JobSpec
    curves: list[Curve]
    decisions: list[str]


def explore(
    spec: JobSpec,
    calibration: Calibration,
    dense_metric: float,
    floor: float,
    example: Batch,
    *,
    on_share: Callable[[float], None],
) -> Found:
    """Measure the dense model, which stays as it was, and choose method, goal and quantization."""
    choice = choose(prunable_layers(calibration.model.module), Unstructured())
    allowed = dense_metric - floor

    def evaluate() -> float:
        return _metric(calibration)

    dense = evaluate()
    layers = sensitivity_curves(
        choice.pruned, LAYER_SHARES, evaluate, on_layer=lambda done, of: on_share(0.7 * done / of)
    )
    whole = _model_curve(choice, evaluate, seed=spec.seed, on_share=on_share)
    share = sweet_spot(whole, dense - allowed)
    weak = [curve.name for curve in layers if curve.metrics[0] < dense - allowed]
    weights = sum(layer.weight.numel() for layer in choice.pruned)
    parameters = sum(one.numel() for one in calibration.model.module.parameters())
    remaining = 1 - share * weights / parameters
    # a model whose layers are all weak has none to spare
    kept = () if len(weak) == len(layers) else tuple(weak[:64])
    method, least = _method(calibration.model, kept, remaining, example)
    chosen = _chosen(spec, max(remaining, least), method)
    return Found(
        chosen,
        [*layers, whole],
        [
            _of_layers(layers, weak, dense, allowed),
            _of_curve(whole, share, dense, allowed),
            f"Pruned in structure, since zeros alone are not faster on most hardware: {share:.0%} of "
            f"{weights:,} prunable weights are {1 - remaining:.1%} of all parameters, so the goal is "
            f"params {max(remaining, least):.3f}{_at_least(least, remaining)}, in {chosen.rounds_in_all()} "
            f"rounds with fine-tuning, widths in steps of {method.round_to}.",
            f"Quantized with {chosen.quantize.kind} afterwards: {_why(chosen.quantize.kind)}.",
        ],
    )


def without_int8(found: Found, spec: JobSpec, reason: str) -> Found:
    """The same decision, without the quantization that the model cannot have."""
    told = f"Not quantized after all: {reason.partition(': set quantize.kind')[0]}."
    return Found(spec, found.curves, [*found.decisions, told])


def sweet_spot(curve: Curve, least: float) -> float:
    """The largest measured share up to which every metric reaches `least`; `LEAST` where none does."""
    share = LEAST
    for at, metric in zip(curve.shares, curve.metrics, strict=True):
        if metric < least:
            break
        share = at
    return share


def _method(
    model: LoadedModel, kept: tuple[str, ...], remaining: float, example: Batch
) -> tuple[Structured, float]:
    """Widths in the largest steps by which `remaining` can be reached, and the least that can remain."""
    graph = trace(model.module, lambda module: model.call(module, example))
    after = parameters_after(model.module, graph)
    for round_to in STEPS:
        method = Structured(exclude=kept, round_to=round_to)
        groups = choose_groups(graph, method).groups if _shrinks(graph, method) else ()
        scores = magnitude(model.module, groups, norm=2)
        least = after(plan(groups, scores, method, 1.0)) / after({})
        if least <= remaining:
            break
    if least == 1:
        raise PreflightError(
            "recipe 'auto' prunes channels, and no width of this model can shrink: use method 'unstructured'"
        )
    return method, least


def _shrinks(graph: DependencyGraph, method: Structured) -> bool:
    try:
        choose_groups(graph, method)
    except PreflightError:
        return False
    return True


def _chosen(spec: JobSpec, remaining: float, method: Structured) -> JobSpec:
    text = spec.data.task is Task.text_classification
    changes = {
        "recipe": None,
        "goal": {"params": remaining},
        "method": method.model_dump(mode="json"),
        "quantize": {"kind": "int8_dynamic" if text else "int8_static"},
    }
    return JobSpec.model_validate({**spec.model_dump(mode="json"), **changes})


def _at_least(least: float, remaining: float) -> str:
    return " (no more can go)" if least > remaining else ""


def _why(kind: str) -> str:
    if kind == "int8_dynamic":
        return "activations of text models vary too much for fixed scales"
    return "activations of image models keep to a range, so fixed scales come from calibration samples"


def _metric(calibration: Calibration) -> float:
    bundle = calibration.bundle
    split = drawn(bundle.calibration or bundle.train, SAMPLES, seed=calibration.seed)
    return metric_of(
        calibration.model,
        bundle.judged_by(split),
        batch_size=calibration.batch_size,
        on_batch=lambda *_: calibration.on_batch(),
    )


def _model_curve(
    choice: Choice, evaluate: Callable[[], float], *, seed: int, on_share: Callable[[float], None]
) -> Curve:
    """All layers cut together by magnitude, one global ranking, no training; the weights are put back."""
    before = [layer.weight.detach().clone() for layer in choice.pruned]
    metrics = []
    for number, share in enumerate(MODEL_SHARES, start=1):
        cut(
            choice, Unstructured(), share, calibration=None, evaluate=None, movement=None, seed=seed, number=0
        )
        metrics.append(evaluate())
        _put_back(choice.pruned, before)
        on_share(0.7 + 0.3 * number / len(MODEL_SHARES))
    return Curve(name="*", shares=list(MODEL_SHARES), metrics=metrics)


@torch.no_grad()
def _put_back(layers: list[Layer], before: list[torch.Tensor]) -> None:
    for layer, weights in zip(layers, before, strict=True):
        layer.weight.copy_(weights)


def _of_layers(layers: list[Curve], weak: list[str], dense: float, allowed: float) -> str:
    head = (
        f"Each of {len(layers)} layers was cut alone on {SAMPLES} samples, where the dense model reaches "
        f"{dense:.4f}"
    )
    if not weak:
        return f"{head}: each bears {LAYER_SHARES[0]:.0%} within the {allowed:.4f} that may be lost."
    if len(weak) == len(layers):
        return f"{head}: not one bears {LAYER_SHARES[0]:.0%} without training, so none is left out."
    named = ", ".join(weak[:5]) + (" and others" if len(weak) > 5 else "")
    return f"{head}: {named} lose more than may be lost at {LAYER_SHARES[0]:.0%}, so their width stays."


def _of_curve(curve: Curve, share: float, dense: float, allowed: float) -> str:
    metrics = dict(zip(curve.shares, curve.metrics, strict=True))
    after = [at for at in curve.shares if at > share]
    told = f"The sweet spot is {share:.0%}: without training the metric is {metrics[share]:.4f}"
    if not after:
        return f"{told}, and no larger share was tried."
    return f"{told}, and {metrics[after[0]]:.4f} at {after[0]:.0%}; {dense - allowed:.4f} was to be kept."
