"""Figures as text."""

from datetime import UTC, datetime

import pytest

from workers.report import format as figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (2_789_464, "2.79 MB"),
        (3_200_000_000, "3.2 GB"),
        (4e15, "4e+03 TB"),
    ],
)
def test_sizes_are_decimal_with_three_digits(value, text):
    assert figures.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12"), (13_912_064, "13.9 M"), (4.1e9, "4.1 G"), (2e12, "2 T")]
)
def test_operations_have_a_prefix(value, text):
    assert figures.operations(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.42, "0.42 s"), (12.34, "12.3 s"), (125.2, "2 min 05 s"), (11_220, "3 h 07 min"), (59.99, "60.0 s")],
)
def test_seconds_grow_into_minutes_and_hours(value, text):
    assert figures.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0025, "+0.25 points"), (-0.0036, "−0.36 points"), (-0.00001, "0.00 points")]
)
def test_points_have_a_sign_unless_they_round_to_zero(value, text):
    assert figures.points(value) == text


@pytest.mark.parametrize(
    ("before", "after", "text"), [(100, 20, "−80.0 %"), (100, 100, "0.0 %"), (0, 0, "none"), (0, 3, "new")]
)
def test_change_is_relative_to_what_was_there(before, after, text):
    assert figures.change(before, after) == text


def test_moments_count_and_shares_are_written_for_people():
    assert figures.moment(datetime(2026, 3, 14, 9, 26, tzinfo=UTC)) == "2026-03-14 09:26 UTC"
    assert figures.count(1_234_567) == "1,234,567"
    assert figures.percent(0.12345) == "12.35 %"
    assert figures.glued("12 % of") == "12\N{NO-BREAK SPACE}% of"
