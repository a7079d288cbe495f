import re
from xml.etree import ElementTree

import pytest

from titanflow.common.curves import MAX_POINTS, Line, Panel, draw, loss_panel, points, thinned

RECORDS = [{"step": step, "loss": 8 - step / 100} for step in range(1, 401)]


def svg(*records: dict) -> str:
    panel = loss_panel(records, "stdlib pretrain")
    assert panel is not None
    return draw([panel]).decode()


def test_it_is_an_svg_with_the_words_as_text() -> None:
    text = svg(*RECORDS, {"step": 400, "validation_loss": 4.1})
    assert ElementTree.fromstring(text).tag.endswith("svg")
    for word in ("stdlib pretrain", "step", "nats per token", "train", "validation"):
        assert word in text


def test_without_validation_there_is_no_legend() -> None:
    assert "validation" not in svg(*RECORDS)


def test_one_point_is_no_curve() -> None:
    assert loss_panel([], "x") is None
    assert loss_panel([{"step": 1, "loss": 3.0}, {"step": 1, "validation_loss": 3.0}], "x") is None


def test_a_value_that_isn_t_there_is_no_point() -> None:
    assert points([{"step": 1, "loss": None}, {"loss": 2.0}, {"step": 3, "loss": 0.0}], "loss") == [(3, 0.0)]


def test_a_long_run_stays_small_and_keeps_its_ends() -> None:
    values = [(step, 1.0) for step in range(100_001)]
    kept = thinned(values)
    assert len(kept) <= MAX_POINTS + 1
    assert (kept[0], kept[-1]) == (values[0], values[-1])
    assert len(draw([Panel("x", "y", [Line("train", values)])])) < 100_000


def test_the_page_shows_through() -> None:
    assert "#ffffff" not in svg(*RECORDS)


def test_the_same_values_are_the_same_bytes() -> None:
    assert svg(*RECORDS) == svg(*RECORDS)


def test_a_title_is_the_text_that_it_is() -> None:
    text = draw([Panel("a $x$ <b> & more", "y", [Line("train", [(0, 1.0), (1, 2.0)])])]).decode()
    assert "a $x$ &lt;b&gt; &amp; more" in text


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([3e-5, 1.5e-5, 0.0], {"0", "1e-5", "3e-5"}),
        ([1.2e6, 1.1e6, 1.0e6], {"1M", "1.1M", "1.2M"}),
        ([140_000.0, 160_000.0, 150_000.0], {"140k", "160k"}),
        ([10.76, 10.77, 10.78], {"10.7600", "10.7800"}),
        ([0.002, 0.001, 0.0], {"0.00000", "0.00100", "0.00200"}),
    ],
)
def test_a_value_at_an_axis_is_whole(values: list[float], written: set[str]) -> None:
    """Rates below 1e-4 and speeds above a million were to be multiplied by a small `1e−5` or `1e6` in the corner."""
    text = draw([Panel("", "", [Line("", [(step, value) for step, value in enumerate(values)])])]).decode()
    found = set(re.findall(r">([^<>\s]+)</text>", text))
    assert written <= found
    # matplotlib writes what stands in the corner with a minus of its own, or with none.
    assert not re.findall(r">[+−]?1e[−\d]", text)


def test_steps_beyond_a_million_are_whole() -> None:
    text = draw([Panel("", "", [Line("", [(0, 1.0), (2_000_000, 2.0)])])]).decode()
    assert {"500k", "1M", "2M"} <= set(re.findall(r">([^<>\s]+)</text>", text))
