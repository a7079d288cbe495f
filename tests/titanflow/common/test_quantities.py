import math

import pytest

from titanflow.common.quantities import duration, price, short, size


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1_000, "1 k"), (2_300_000, "2.3 M"), (7.1e9, "7.1 B"), (1.5e13, "15 T")],
)
def test_short(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (7260, "2 h 1 min"),
        (86400 + 7200, "1 d 2 h"),
        (math.nan, "–"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(5 << 20, "5 MiB"), (1 << 29, "0.5 GiB"), (80 << 30, "80.0 GiB"), (1639 << 30, "1,639 GiB")],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


def test_price() -> None:
    assert [price(cost) for cost in (1234.567, 0.1, 0.00812, 0)] == ["1,234.57", "0.10", "0.0081", "0.00"]
