"""What a job reached, in one sentence."""

from collections.abc import Sequence

from schemas.benchmark import RUNTIMES, BenchmarkResult, Verdict
from schemas.goal import QUANTITIES
from schemas.report import Stage
from schemas.round import Round, share_removed
from workers.report.format import percent, points

_SPEED = {
    Verdict.faster: "faster",
    Verdict.slower: "slower",
    Verdict.no_difference: "no difference",
    Verdict.unstable: "too unstable to judge",
}

_ROUNDING = 1e-9


def verdict_sentence(
    *,
    goal: float | None,
    quantity: str,
    reached: bool,
    removed: float,
    metric_name: str,
    dense_metric: float,
    pruned_metric: float,
    floor: float,
    rounds: Sequence[Round],
    benchmark: BenchmarkResult | None,
    stages: Sequence[Stage] = (),
) -> str:
    """The headline of a report: what went, the metric against the floor, the measured speed; shares in 0..1.

    `goal` and `removed` are shares of `quantity`; without a goal the job searched for the most.
    """
    change = points(pruned_metric - dense_metric)
    metric = (
        f"{metric_name} {percent(dense_metric)} dense, {percent(pruned_metric)} pruned ({change}; "
        f"floor {percent(floor)})"
    )
    what = f"{percent(removed, 1)} of the {quantity} {is_removed(quantity)}"
    if goal is None:
        head = f"{_most(rounds)}: {what}"
    elif reached:
        head = f"Goal reached: {what}"
    else:
        head = f"Goal of {percent(goal, 1)} not reached, because {_why(rounds, goal)}: {what}"
    return "; ".join([head, metric, *_quantized(stages), f"{_speed(benchmark)}."])


def _most(rounds: Sequence[Round]) -> str:
    """A search that stopped early, by its budget or at the most that it might try, says so."""
    if all(one.held for one in rounds):
        return "The most that was tried, and the floor held"
    least = min(share_removed(one) for one in rounds if not one.held)
    return f"The most that held, {percent(least, 1)} did not"


def is_removed(quantity: str) -> str:
    """What happens to it: weights become zero, all else goes."""
    if quantity == QUANTITIES["sparsity"]:
        return "are zero"
    return "is gone" if quantity == QUANTITIES["latency"] else "are gone"


def _quantized(stages: Sequence[Stage]) -> list[str]:
    return [f"{percent(stage.metric)} quantized" for stage in stages if stage.name == "quantized"]


def _why(rounds: Sequence[Round], goal: float) -> str:
    broken = [each for each in rounds if not each.held]
    if broken:
        return f"round {broken[0].number} at {percent(share_removed(broken[0]), 1)} fell below the floor"
    if rounds and rounds[-1].target >= goal - _ROUNDING:
        return "the last round came out at less than it aimed at"
    return "the budget allows no more rounds"


def _speed(benchmark: BenchmarkResult | None) -> str:
    if benchmark is None or not benchmark.comparisons:
        return "speed not measured"
    parts = (f"{_SPEED[each.verdict]} at batch {each.batch_size}" for each in benchmark.comparisons)
    return f"speed in {RUNTIMES[benchmark.backend]}: {', '.join(parts)}"
