"""Markdown out of the results: a line for each case, the mean over its seeds, ours beside the library's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from tests.tables.plan import Case
from tests.tables.results import OURS, Result, Results, Speed

HEAD = "| case | seeds | dense | pruned | change | library | removed | speed | seconds |"
RULE = "|---|---|---|---|---|---|---|---|---|"
MATTERS = 0.005
"""Difference of the removed shares from which on a library's is told."""
WORDS = {
    "torch_prune": "torch.nn.utils.prune",
    "torch_pruning": "Torch-Pruning",
    "llm_compressor": "LLM Compressor",
}


@dataclass(frozen=True)
class Line:
    """All seeds of one case, as far as they are measured."""

    cases: Sequence[Case]
    ours: Sequence[Result]
    theirs: Sequence[Result]

    @property
    def first(self) -> Case:
        """Any of the seeds: they differ in the seed alone."""
        return self.cases[0]

    @property
    def lost(self) -> float:
        """What is worse than in the dense model: points of accuracy, or perplexity."""
        sign = -1 if self.first.metric == "perplexity" else 100
        return fmean(sign * (one.dense - one.metric) for one in self.ours)

    def failures(self) -> list[str]:
        """Which limits do not hold, in sentences."""
        limit, name = self.first.limit, f"row {self.first.row}, {self.first.name}"
        failures = []
        if limit.lost_points is not None and self.lost > limit.lost_points:
            failures.append(f"{name}: {self.lost:.2f} points are lost, at most {limit.lost_points} may be")
        if limit.speedup is not None:
            reached = max(_speedups(self.ours, limit.batch), default=0.0)
            if reached < limit.speedup:
                failures.append(f"{name}: {reached:.2f}x as fast, and {limit.speedup}x is asked for")
            if any(one.verdict == "unstable" for result in self.ours for one in result.speeds):
                failures.append(f"{name}: the latency was too unstable to judge, measure it again")
        if self.theirs and not self._is_at_least_theirs():
            failures.append(f"{name}: {WORDS[self.theirs[0].by]} is better")
        return failures

    def _is_at_least_theirs(self) -> bool:
        """In the mean over the seeds that both have."""
        seeds = {one.key for one in self.ours} & {one.key for one in self.theirs}
        ours = fmean(one.metric for one in self.ours if one.key in seeds) if seeds else 0.0
        theirs = fmean(one.metric for one in self.theirs if one.key in seeds) if seeds else 0.0
        return ours <= theirs if self.first.metric == "perplexity" else ours >= theirs


def order_failures(found: Sequence[Line]) -> list[str]:
    """Lines that are worse than the line which they should be as good as, in sentences."""
    by_name = {(line.first.row, line.first.name): line for line in found}
    failures = []
    for line in found:
        row, other = line.first.row, line.first.limit.as_good_as
        if other is not None and (row, other) in by_name and line.lost > by_name[row, other].lost:
            failures.append(f"row {row}: {line.first.name} is worse than {other}")
    return failures


def lines(cases: Sequence[Case], results: Results) -> list[Line]:
    """One for each case of each row that has at least one result of ours."""
    found = []
    for _, group in groupby(cases, key=lambda case: (case.row, case.name)):
        seeds = list(group)
        ours = [one for case in seeds if (one := results.of(case, OURS))]
        theirs = [one for case in seeds if case.peer and (one := results.of(case, case.peer))]
        if ours:
            found.append(Line(seeds, ours, theirs))
    return found


def markdown(found: Sequence[Line]) -> str:
    """The tables, a heading each, and where they were measured."""
    parts = []
    for _, group in groupby(found, key=lambda line: line.first.row):
        rows = list(group)
        parts.append("\n".join([f"**{rows[0].first.title}**", "", HEAD, RULE, *map(_cells, rows)]))
    machines = sorted({_machine(one) for line in found for one in line.ours})
    return "\n\n".join([*parts, *machines])


def _cells(line: Line) -> str:
    case, percent = line.first, line.first.metric == "accuracy"
    cells = [
        case.name,
        str(len(line.ours)),
        _value(fmean(one.dense for one in line.ours), percent),
        _spread([one.metric for one in line.ours], percent),
        f"{-line.lost:+.2f} points" if percent else f"{line.lost:+.2f}",
        _library(line, percent),
        f"{fmean(one.removed for one in line.ours):.1%}",
        "; ".join(_speeds(line)),
        f"{fmean(one.seconds for one in line.ours):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _library(line: Line, percent: bool) -> str:
    if not line.theirs:
        return ""
    removed = fmean(one.removed for one in line.theirs)
    differs = abs(removed - fmean(one.removed for one in line.ours)) > MATTERS
    more = f", {removed:.1%} removed" if differs else ""
    return f"{_spread([one.metric for one in line.theirs], percent)} ({WORDS[line.theirs[0].by]}{more})"


def _spread(values: Sequence[float], percent: bool) -> str:
    """The mean, and with several seeds how far from it they lie."""
    mean = fmean(values)
    text = _value(mean, percent)
    if len(values) == 1:
        return text
    far = max(abs(value - mean) for value in values)
    return f"{text} ± {100 * far:.2f}" if percent else f"{text} ± {far:.2f}"


def _value(value: float, percent: bool) -> str:
    return f"{value:.2%}" if percent else f"{value:.2f}"


def _speeds(line: Line) -> Iterator[str]:
    """The mean speed-up of each kind of input; a library's beside it."""
    kinds = list(dict.fromkeys(one.what for result in line.ours for one in result.speeds))
    for what in kinds:
        text = f"{what}: {fmean(_speedups_of(line.ours, what)):.2f}x"
        theirs = _speedups_of(line.theirs, what)
        yield f"{text} (library {fmean(theirs):.2f}x)" if theirs else text


def _speedups(results: Sequence[Result], batch: int) -> list[float]:
    """Means over the seeds, one for each kind of input of this batch size."""
    kinds = {one.what for result in results for one in result.speeds if _is_of_batch(one, batch)}
    return [fmean(_speedups_of(results, what)) for what in kinds]


def _is_of_batch(speed: Speed, batch: int) -> bool:
    return speed.what == f"batch {batch}" or speed.what.startswith(f"batch {batch},")


def _speedups_of(results: Sequence[Result], what: str) -> list[float]:
    return [one.speedup for result in results for one in result.speeds if one.what == what]


def _machine(result: Result) -> str:
    wanted = ("torch", "transformers", "onnxruntime")
    versions = ", ".join(f"{name} {result.versions[name]}" for name in wanted if name in result.versions)
    return f"Measured on {result.machine}; {versions}."
