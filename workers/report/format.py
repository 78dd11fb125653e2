"""Figures as a reader wants to see them."""

from datetime import datetime


def count(value: int) -> str:
    """1234567 as `1,234,567`."""
    return f"{value:,}"


def percent(share: float, digits: int = 2) -> str:
    """A share of 0..1 as `12.34 %`."""
    return f"{share * 100:.{digits}f} %"


def points(share: float) -> str:
    """A difference of two shares as `+0.25 points`; the minus is the typographic one."""
    return f"{signed(share * 100, 2)} points"


def signed(value: float, digits: int) -> str:
    """Always with a sign, except for what rounds to zero."""
    text = f"{value:+.{digits}f}"
    if float(text) == 0:
        return text[1:]
    return text.replace("-", "−")


def size(value: int) -> str:
    """Bytes in decimal units: `1.24 MB`."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def operations(value: int) -> str:
    """Multiply-accumulates: `41.9 M`."""
    amount = float(value)
    for unit in ("", "k", "M", "G"):
        if amount < 1000:
            return f"{amount:.3g} {unit}".rstrip()
        amount /= 1000
    return f"{amount:.3g} T"


def seconds(value: float) -> str:
    """`0.42 s`, `12.3 s`, `2 min 05 s`, `3 h 07 min`."""
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def change(before: float, after: float) -> str:
    """The relative change of a size, `−80.0 %`; of nothing there is none."""
    if before == 0:
        return "none" if after == 0 else "new"
    return f"{signed((after / before - 1) * 100, 1)} %"


def moment(value: datetime) -> str:
    """A time to the minute, with its zone."""
    return value.strftime("%Y-%m-%d %H:%M %Z")


def glued(text: str) -> str:
    """No line break between a figure and its percent sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")
