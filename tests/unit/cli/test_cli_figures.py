"""Numbers as people read them."""

import pytest

from service.cli import figures


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (637_936, "637.9 kB"), (5.2e12, "5.2 TB")],
)
def test_bytes_have_decimal_units(count: float | None, text: str):
    assert figures.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0 s"), (59, "59 s"), (60, "1:00"), (119.7, "2:00"), (3723, "1:02:03")],
)
def test_seconds_become_clock_time(seconds: float | None, text: str):
    assert figures.duration(seconds) == text


def test_what_is_not_known_is_a_dash():
    assert figures.share(None) == figures.metric(None) == figures.whole(None) == figures.local(None) == "-"


def test_shares_and_metrics_are_rounded_as_in_the_report():
    assert (figures.share(0.8), figures.metric(0.91234), figures.whole(156778)) == (
        "80.0%",
        "0.9123",
        "156,778",
    )
