"""`report.html`: one self-contained page, without scripts and without requests to anywhere."""

from collections.abc import Iterator
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from schemas.benchmark import Verdict
from schemas.report import Report
from schemas.round import share_removed
from workers.report import format as figures
from workers.report.charts import curve_chart, sensitivity_chart, speed_chart
from workers.report.verdict import is_removed

_WORDS = {
    Verdict.faster: "faster",
    Verdict.slower: "slower",
    Verdict.no_difference: "no difference",
    Verdict.unstable: "unstable",
}
_CLASSES = {
    Verdict.faster: "good",
    Verdict.slower: "bad",
    Verdict.no_difference: "",
    Verdict.unstable: "warn",
}


class Row(NamedTuple):
    """One figure of the dense and of the pruned model, as text."""

    name: str
    dense: str
    pruned: str
    change: str


def render_html(report: Report) -> str:
    """The page; every text of a user's is escaped, and the same report gives the same bytes."""
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            figures=list(_rows(report)),
            curve=curve_chart(report),
            sensitivity=sensitivity_chart(report.curves, report.metric_name) if report.curves else None,
            is_removed=is_removed,
            share_removed=share_removed,
            speed=speed_chart(report.benchmark) if report.benchmark else None,
            pruned_layers=sum(layer.pruned for layer in report.layers),
            share=lambda seconds: 100 * (seconds or 0.0) / report.seconds if report.seconds else 0.0,
            change=figures.change,
            verdict_words=_WORDS,
            verdict_class=_CLASSES,
            spec=report.spec.model_dump_json(indent=2),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("workers.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        figures.count,
        figures.percent,
        figures.points,
        figures.size,
        figures.seconds,
        figures.moment,
        figures.glued,
    ):
        environment.filters[function.__name__] = function
    return environment


def _rows(report: Report) -> Iterator[Row]:
    dense, pruned = report.dense, report.pruned
    yield Row(
        report.metric_name.capitalize(),
        figures.percent(dense.metric),
        figures.percent(pruned.metric),
        figures.points(pruned.metric - dense.metric),
    )
    for name, value in dense.metrics.items():
        if name in pruned.metrics:
            left, right = f"{value:.4f}", f"{pruned.metrics[name]:.4f}"
            yield Row(name[:1].upper() + name[1:], left, right, f"{pruned.metrics[name] - value:+.4f}")
    yield _counted("Parameters", dense.parameters, pruned.parameters)
    yield _counted("Parameters that are not zero", dense.nonzeros, pruned.nonzeros)
    yield _sized("Size of model.safetensors", dense.bytes, pruned.bytes)
    yield _sized("The same, compressed (gzip, level 6)", dense.compressed_bytes, pruned.compressed_bytes)
    yield _macs("Multiply-accumulates a sample", dense.macs, pruned.macs)
    yield _macs("Multiply-accumulates with a non-zero weight", dense.effective_macs, pruned.effective_macs)


def _counted(name: str, dense: int, pruned: int) -> Row:
    return Row(name, figures.count(dense), figures.count(pruned), figures.change(dense, pruned))


def _sized(name: str, dense: int, pruned: int) -> Row:
    return Row(name, figures.size(dense), figures.size(pruned), figures.change(dense, pruned))


def _macs(name: str, dense: int | None, pruned: int | None) -> Row:
    if dense is None or pruned is None:
        left, right = ("not counted" if one is None else figures.operations(one) for one in (dense, pruned))
        return Row(name, left, right, "–")
    return Row(name, figures.operations(dense), figures.operations(pruned), figures.change(dense, pruned))
