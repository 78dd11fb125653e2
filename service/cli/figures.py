"""Numbers and times as people read them."""

from datetime import datetime


def size(count: float | None) -> str:
    """Bytes in decimal units: 1.5 MB."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def share(value: float | None) -> str:
    """A ratio in percent."""
    return "-" if value is None else f"{value:.1%}"


def metric(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def whole(value: int | None) -> str:
    """With thousands set apart."""
    return "-" if value is None else f"{value:,}"


def duration(seconds: float | None) -> str:
    """1:02:03, 4:05, 7 s."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def local(moment: datetime | None) -> str:
    """In the reader's own time zone."""
    return "-" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
