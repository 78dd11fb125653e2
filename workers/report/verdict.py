"""What a job reached, in one sentence."""

from collections.abc import Sequence

from schemas.benchmark import BenchmarkResult, Verdict
from schemas.round import Round
from workers.report.format import percent, points

_SPEED = {
    Verdict.faster: "faster",
    Verdict.slower: "slower",
    Verdict.no_difference: "no difference",
    Verdict.unstable: "too unstable to judge",
}


def verdict_sentence(
    *,
    goal: float,
    reached: bool,
    sparsity: float,
    metric_name: str,
    dense_metric: float,
    pruned_metric: float,
    floor: float,
    rounds: Sequence[Round],
    benchmark: BenchmarkResult | None,
) -> str:
    """The headline of a report: sparsity, metric against the floor, measured speed; all shares in 0..1."""
    change = points(pruned_metric - dense_metric)
    metric = (
        f"{metric_name} {percent(dense_metric)} dense, {percent(pruned_metric)} pruned ({change}; "
        f"floor {percent(floor)})"
    )
    if reached:
        head = f"Goal reached: {percent(sparsity, 1)} of the weights of the pruned layers are zero"
    else:
        head = (
            f"Goal of {percent(goal, 1)} sparsity not reached, because {_why(rounds)}: the result has "
            f"{percent(sparsity, 1)} zeros in the pruned layers"
        )
    return f"{head}; {metric}; {_speed(benchmark)}."


def _why(rounds: Sequence[Round]) -> str:
    broken = [each for each in rounds if not each.held]
    if broken:
        return f"round {broken[0].number} at {percent(broken[0].sparsity, 1)} fell below the floor"
    return "the budget allows no more rounds"


def _speed(benchmark: BenchmarkResult | None) -> str:
    if benchmark is None or not benchmark.comparisons:
        return "speed not measured"
    parts = (f"{_SPEED[each.verdict]} at batch {each.batch_size}" for each in benchmark.comparisons)
    return f"speed in ONNX Runtime: {', '.join(parts)}"
