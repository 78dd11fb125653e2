"""The two charts of a report."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from schemas.benchmark import BenchmarkResult, Comparison, Verdict
from schemas.report import Curve, Report
from schemas.round import share_removed
from workers.report.format import percent
from workers.report.svg import ACCENT, BAD, BAND, INK, MUTED, chart_style, to_svg

_WIDTH = 5.0
"""Inches: narrow, so that the text stays readable when a phone shrinks the chart."""

_NAMED_CURVES = 5
"""Of a hundred layers a reader wants to know the few that bear least."""

_FARTHEST_FLOOR = 2.0
"""Times the range of the metrics: a floor farther below would flatten the curve, so it is only named."""


def curve_chart(report: Report) -> Markup:
    """Sparsity against metric for the dense model and for each round, with the floor."""
    name = "curve"
    with chart_style(name):
        figure = Figure(figsize=(_WIDTH, 3.1), layout="constrained")
        axes = figure.subplots()
        _draw_rounds(axes, report)
        _draw_floor(axes, report)
        axes.set_xlabel(f"{report.quantity} removed (%)")
        axes.set_ylabel(f"{report.metric_name} (%)")
        axes.margins(x=0.05, y=0.12)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=9)
        return to_svg(figure, name, curve_text(report))


def curve_text(report: Report) -> str:
    """What the curve shows, for those who do not see it."""
    steps = "; ".join(
        f"round {each.number}: {percent(share_removed(each), 1)} removed, {percent(each.metric)}"
        f"{'' if each.held else ', below the floor'}"
        for each in report.rounds
    )
    dense = percent(report.dense.metric)
    head = f"{report.metric_name} by {report.quantity} removed."
    return f"{head} Dense: {dense}. Floor: {percent(report.floor)}. {steps}"


def _draw_rounds(axes: Axes, report: Report) -> None:
    held = [(0.0, report.dense.metric * 100)]
    held += [(share_removed(each) * 100, each.metric * 100) for each in report.rounds if each.held]
    broken = [(share_removed(each) * 100, each.metric * 100) for each in report.rounds if not each.held]
    held.sort()
    axes.plot(*zip(*held, strict=True), color=ACCENT, marker="o", markersize=5, linewidth=1.8, label="rounds")
    axes.plot(*held[0], color=INK, marker="D", markersize=7, linestyle="none", label="dense model")
    if broken:
        xs, ys = zip(*broken, strict=True)
        axes.plot(xs, ys, color=BAD, marker="X", markersize=8, linestyle="none", label="fell below the floor")


def _draw_floor(axes: Axes, report: Report) -> None:
    metrics = [report.dense.metric, *(each.metric for each in report.rounds)]
    span = max(max(metrics) - min(metrics), 0.01)
    text = f"floor {percent(report.floor)}"
    if report.floor >= min(metrics) - _FARTHEST_FLOOR * span:
        axes.axhline(report.floor * 100, color=BAD, linestyle=(0, (5, 3)), linewidth=1.4, label=text)
    else:
        axes.plot([], [], color=BAD, linestyle=(0, (5, 3)), label=f"{text}, below this chart")


def speed_chart(benchmark: BenchmarkResult) -> Markup:
    """The speed-up of each batch size with its interval, over the noise of dense against dense."""
    name = "speed"
    rows = list(reversed(benchmark.comparisons))
    with chart_style(name):
        figure = Figure(figsize=(_WIDTH, 1.5 + 0.45 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for row, comparison in enumerate(rows):
            _draw_speed(axes, row, comparison)
        axes.axvline(1, color=MUTED, linewidth=1.2)
        axes.set_yticks(range(len(rows)), [f"batch {each.batch_size}" for each in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(*_speed_limits(rows))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("speed relative to the dense model (above 1: faster)")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter("{x:g}x")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.3), ncols=2, fontsize=9)
        return to_svg(figure, name, speed_text(benchmark))


def speed_text(benchmark: BenchmarkResult) -> str:
    """What the speed chart shows, for those who do not see it."""
    return "Speed of the pruned model. " + " ".join(each.sentence for each in benchmark.comparisons)


def _draw_speed(axes: Axes, row: int, comparison: Comparison) -> None:
    first = row == 0
    axes.barh(
        row,
        2 * comparison.noise,
        left=1 - comparison.noise,
        height=0.7,
        color=BAND,
        label="noise: dense against itself" if first else None,
    )
    shown = BAD if comparison.verdict is Verdict.slower else ACCENT
    axes.errorbar(
        comparison.speedup,
        row,
        xerr=[
            [comparison.speedup - comparison.speedup_low],
            [comparison.speedup_high - comparison.speedup],
        ],
        color=INK if comparison.verdict in (Verdict.no_difference, Verdict.unstable) else shown,
        marker="o",
        capsize=4,
        linewidth=1.8,
        label="pruned, 95 % interval" if first else None,
    )


def _speed_limits(rows: list[Comparison]) -> tuple[float, float]:
    """Around 1, at least 10 % to each side: a difference of 1 % must not look like one of 50 %."""
    low = min(min(each.speedup_low, 1 - each.noise) for each in rows)
    high = max(max(each.speedup_high, 1 + each.noise) for each in rows)
    margin = 0.05 * (high - low)
    return min(low - margin, 0.9), max(high + margin, 1.1)


def sensitivity_chart(curves: Sequence[Curve], metric_name: str) -> Markup:
    """The metric of one layer cut alone, at each share; the layers that bear least in colour."""
    name = "sensitivity"
    with chart_style(name):
        figure = Figure(figsize=(_WIDTH, 3.1), layout="constrained")
        axes = figure.subplots()
        weakest = sorted(curves, key=lambda curve: curve.metrics[-1])[:_NAMED_CURVES]
        for curve in curves:
            named = curve in weakest
            xs, ys = [100 * share for share in curve.shares], [100 * metric for metric in curve.metrics]
            axes.plot(
                xs,
                ys,
                color=None if named else BAND,
                linewidth=1.8 if named else 1.0,
                marker="o" if named else None,
                markersize=4,
                label="all together" if curve.name == "*" else curve.name if named else None,
                zorder=2 if named else 1,
            )
        axes.set_xlabel("of its weights removed (%)")
        axes.set_ylabel(f"{metric_name} (%)")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1, fontsize=8)
        return to_svg(figure, name, sensitivity_text(curves))


def sensitivity_text(curves: Sequence[Curve]) -> str:
    """What the chart shows, for those who do not see it."""
    parts = (
        f"{curve.name}: {percent(curve.metrics[-1])} at {percent(curve.shares[-1], 0)}" for curve in curves
    )
    return "Metric of each layer cut alone. " + "; ".join(parts)
