import re
from xml.etree import ElementTree

from titanflow.common.curves import GREY, TRAIN_COLOUR, VALIDATION_COLOUR
from titanflow.report.pictures import loss_svgs, smaller_svgs

RECORDS = [{"step": step, "loss": 8.0 / step, "tokens_per_second": 100.0, "grad_norm": None} for step in range(1, 9)]


def test_a_picture_stands_in_a_page_without_header_names_or_addresses() -> None:
    svg, _ = loss_svgs([*RECORDS, {"step": 8, "validation_loss": 2.0}])
    assert svg.startswith('<svg class="plot" role="img" viewBox=')
    assert "http" not in svg.replace("xlink:href", "")
    assert "<style" not in svg
    assert 'id="figure_1"' not in svg
    ElementTree.fromstring(svg.replace("xlink:href", "href"))


def test_every_colour_is_the_page_s() -> None:
    svg, _ = loss_svgs([*RECORDS, {"step": 8, "validation_loss": 2.0}])
    for drawn in (GREY, TRAIN_COLOUR, VALIDATION_COLOUR, "#000000", "#ffffff"):
        assert drawn not in svg
    for styled in ("var(--accent)", "var(--second)", "var(--muted)"):
        assert styled in svg


def test_what_was_not_recorded_is_not_drawn() -> None:
    (svg,) = smaller_svgs(RECORDS)
    assert "tokens a second" in svg
    assert smaller_svgs([]) == []
    assert loss_svgs(RECORDS[:1]) == []


def test_steps_are_whole_and_values_are_written_whole() -> None:
    """Three steps had a 1.5 between them, and losses close together were `+7.678e-1` and the rest."""
    for svg in loss_svgs([{"step": step, "loss": 0.7678 + 1e-5 * step} for step in (1, 2, 3)]):
        written = re.findall(r">([^<>\s]+)</text>", svg)
        numbers = [text for text in written if re.fullmatch(r"[\d.]+", text)]
        assert {"1", "2", "3"} <= set(numbers)
        assert all("." not in text or text.startswith("0.767") for text in numbers)
        assert not [text for text in written if "e" in text and "7678" in text]
