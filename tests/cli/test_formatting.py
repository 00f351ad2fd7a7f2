"""How values are written for people."""

import pytest

from lmstudio_integrations.cli._formatting import duration, file_size


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.00 kB"),
        (2_500_000, "2.50 MB"),
        (4.2e9, "4.20 GB"),
        (70e12, "70000.00 GB"),
    ],
)
def test_a_size_has_the_unit_that_fits(count: float, expected: str) -> None:
    assert file_size(count) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0s"),
        (0.4, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599.6, "1h"),
        (3661, "1h 1m"),
        (3601, "1h 1s"),
        (90_000, "25h"),
    ],
)
def test_a_time_has_its_two_largest_units(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
