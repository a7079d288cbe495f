from xml.etree import ElementTree

from titanflow.curves import GREY, TRAIN_COLOUR, VALIDATION_COLOUR
from titanflow.report.pictures import loss_svg, smaller_svgs

RECORDS = [{"step": step, "loss": 8.0 / step, "tokens_per_second": 100.0, "grad_norm": None} for step in range(1, 9)]


def test_a_picture_stands_in_a_page_without_header_names_or_addresses() -> None:
    svg = loss_svg([*RECORDS, {"step": 8, "validation_loss": 2.0}])
    assert svg.startswith('<svg class="plot" role="img" viewBox=')
    assert "http" not in svg.replace("xlink:href", "")
    assert "<style" not in svg
    assert 'id="figure_1"' not in svg
    ElementTree.fromstring(svg.replace("xlink:href", "href"))


def test_every_colour_is_the_page_s() -> None:
    svg = loss_svg([*RECORDS, {"step": 8, "validation_loss": 2.0}])
    for drawn in (GREY, TRAIN_COLOUR, VALIDATION_COLOUR, "#000000", "#ffffff"):
        assert drawn not in svg
    for styled in ("var(--accent)", "var(--second)", "var(--muted)"):
        assert styled in svg


def test_what_was_not_recorded_is_not_drawn() -> None:
    (svg,) = smaller_svgs(RECORDS)
    assert "tokens a second" in svg
    assert smaller_svgs([]) == []
    assert loss_svg(RECORDS[:1]) == ""
