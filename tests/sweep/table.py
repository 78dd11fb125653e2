"""`docs/architectures.md`, from the records of a sweep."""

import platform
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnxruntime
import timm
import torch
import torchvision
import transformers

from tests.sweep.case import Case

FILE = Path(__file__).parents[2] / "docs" / "architectures.md"
REASONS_SHOWN = 2

Records = Mapping[str, Mapping[str, dict[str, Any] | None]]

_HEAD = """# Architectures

What structured pruning does to each architecture of the zoo when half of the units of every width go
(`units: [channels, neurons, heads]`, uniform share 0.5, `round_to: 1`, L1 magnitude). Written by `make sweep`
on {date} with torch {torch}, torchvision {torchvision}, timm {timm}, transformers {transformers},
ONNX Runtime {onnxruntime}, Python {python}, on the CPU.

Weights are random and inputs small (they are stated), so that the sweep is about shapes and arithmetic, not
about accuracy; MACs are those of that input. Each row ran: the dependency analysis, the cut, a forward pass
that equals the masked dense model's to 1e-5 of the largest output (where a layer norm runs over removed units
the twin's norm counts the remaining ones only: marked °), one training step, and an ONNX export that ONNX
Runtime runs to the same scores. Seconds are CPU time of analysis, scores, plan and cut on one core.

**{passed} of {total} pass ({share:.1%}).** {by_library}

"""
_COLUMNS = (
    "| architecture | input | parameters | MACs | masked twin | ONNX | seconds | left dense, and why |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def passed(record: Mapping[str, dict[str, Any] | None]) -> bool:
    """Both stages ran and passed."""
    return all(stage is not None and stage["outcome"] == "passed" for stage in record.values())


def verdict(record: Mapping[str, dict[str, Any] | None]) -> str:
    """`passed`, or the first stage that did not, with the reason."""
    for name, stage in record.items():
        if stage is None:
            return f"{name}: not run"
        if stage["outcome"] != "passed":
            return f"{stage['outcome']}: {stage['reason']}"
    return "passed"


def write(cases: Mapping[str, Case], records: Records) -> None:
    """The whole file, new."""
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(render(cases, records, today=datetime.now(UTC).date().isoformat()), encoding="utf-8")


def render(cases: Mapping[str, Case], records: Records, *, today: str) -> str:
    """The text: what was run, one table a library, and the rows that did not pass."""
    good = {name: passed(record) for name, record in records.items()}
    totals = Counter(cases[name].library for name in records)
    by_library = ", ".join(
        f"{library}: {sum(good[name] for name in good if cases[name].library == library)} of {count}"
        for library, count in totals.items()
    )
    text = _HEAD.format(
        date=today,
        torch=torch.__version__.partition("+")[0],
        torchvision=torchvision.__version__.partition("+")[0],
        timm=timm.__version__,
        transformers=transformers.__version__,
        onnxruntime=onnxruntime.__version__,
        python=platform.python_version(),
        passed=sum(good.values()),
        total=len(good),
        share=sum(good.values()) / len(good),
        by_library=by_library.capitalize() + ".",
    )
    for library in totals:
        rows = [
            _row(cases[name], record) for name, record in records.items() if cases[name].library == library
        ]
        text += f"## {library}\n\n{_COLUMNS}{''.join(rows)}\n"
    return text.rstrip() + "\n"


def _row(case: Case, record: Mapping[str, dict[str, Any] | None]) -> str:
    name = case.name.partition("/")[2]
    check, export = record["check"], record["export"]
    if check is None or check["outcome"] != "passed":
        return f"| {name} | {case.shown} | | | | | | **{_safe(verdict(record))}** |\n"
    cells = [
        name,
        case.shown,
        f"{check['parameters']:,} → {check['parameters_after']:,}",
        f"{_millions(check['macs'])} → {_millions(check['macs_after'])}",
        f"{check['difference']:.0e}{'' if check['plain_mask'] else '°'}",
        _onnx(export),
        f"{check['seconds']:.2f}",
        _safe(_dense(check["reasons"])),
    ]
    return f"| {' | '.join(cells)} |\n"


def _onnx(export: dict[str, Any] | None) -> str:
    if export is None:
        return "not run"
    return "equal" if export["outcome"] == "passed" else f"**{_safe(export['reason'])}**"


def _dense(reasons: Mapping[str, str]) -> str:
    """Reasons with how many layers have them and one of their names, the commonest first."""
    counts = Counter(reasons.values())
    first = {reason: name for name, reason in reversed(list(reasons.items()))}
    parts = [
        f"`{first[reason]}`{f' and {count - 1} more' if count > 1 else ''}: {reason}"
        for reason, count in counts.most_common(REASONS_SHOWN)
    ]
    rest = len(counts) - REASONS_SHOWN
    return "; ".join(parts) + (f"; {rest} other reasons" if rest > 0 else "")


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.1f} M" if macs < 1e9 else f"{macs / 1e9:,.2f} G"


def _safe(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
