"""A job's report on one screen: what was reached, dense against pruned, rounds, latency, notes."""

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from schemas.benchmark import BenchmarkResult
from schemas.report import Report
from schemas.round import share_removed
from service.cli.figures import duration, metric, share, size, whole


def report_panel(report: Report) -> RenderableType:
    """The headline figures of a report."""
    style = "bold green" if report.goal_reached else "bold yellow"
    parts: list[RenderableType] = [Text(report.verdict, style=style), _models(report), _rounds(report)]
    if report.benchmark is not None:
        parts += [_latency(report.benchmark), Text(report.benchmark.note, style="dim")]
    if report.stages:
        parts.append(_stages(report))
    parts += [Text(f"decided: {one}") for one in report.decisions]
    parts += [Text(f"note: {note}", style="dim") for note in report.notes]
    time = (
        f"{duration(report.seconds)} in all, {duration(report.device_seconds)} on {report.environment.device}"
    )
    return Group(*parts, Text(f"{report.architecture}, seed {report.seed}, {time}", style="dim"))


def _models(report: Report) -> Table:
    table = _table("", "dense", "pruned")
    dense, pruned = report.dense, report.pruned
    table.add_row(
        report.metric_name, metric(dense.metric), f"{metric(pruned.metric)} (floor {report.floor:.4f})"
    )
    for name, value in dense.metrics.items():
        if name in pruned.metrics:
            table.add_row(escape(name), metric(value), metric(pruned.metrics[name]))
    table.add_row(f"{report.quantity} removed", "", share(report.removed))
    table.add_row("parameters", whole(dense.parameters), whole(pruned.parameters))
    table.add_row("not zero", whole(dense.nonzeros), whole(pruned.nonzeros))
    table.add_row("model.safetensors", size(dense.bytes), size(pruned.bytes))
    table.add_row("the same, compressed", size(dense.compressed_bytes), size(pruned.compressed_bytes))
    table.add_row(
        "MACs with a weight that is not zero", whole(dense.effective_macs), whole(pruned.effective_macs)
    )
    return table


def _rounds(report: Report) -> Table:
    table = _table("round", "removed", "after the cut", "after fine-tuning", "held")
    for one in report.rounds:
        held = "yes" if one.held else "no, rolled back"
        row = (share(share_removed(one)), metric(one.metric_before_fine_tune), metric(one.metric), held)
        table.add_row(str(one.number), *row)
    return table


def _stages(report: Report) -> Table:
    table = _table("stage", "file", report.metric_name, "size", "compressed")
    for one in report.stages:
        table.add_row(one.name, one.file, metric(one.metric), size(one.bytes), size(one.compressed_bytes))
    return table


def _latency(result: BenchmarkResult) -> Table:
    table = _table("batch", "dense p50", "pruned p50", "speed-up (95 % interval)", "verdict")
    for one in result.comparisons:
        interval = f"{one.speedup:.2f} ({one.speedup_low:.2f}–{one.speedup_high:.2f})"
        latencies = (f"{one.dense.p50_ms:.2f} ms", f"{one.pruned.p50_ms:.2f} ms")
        table.add_row(str(one.batch_size), *latencies, interval, escape(one.verdict.value.replace("_", " ")))
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name)
    return table
