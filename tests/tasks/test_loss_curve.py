import base64
from xml.etree import ElementTree

from tasks.loss_curve import MAX_POINTS, loss_curve

RECORDS = [{"step": step, "loss": 8 - step / 100} for step in range(1, 401)]


def svg(uri: str) -> str:
    kind, data = uri.split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    return base64.b64decode(data).decode()


def test_it_is_an_svg_with_the_words_as_text():
    text = svg(loss_curve([*RECORDS, {"step": 400, "validation_loss": 4.1}], "stdlib pretrain"))
    assert ElementTree.fromstring(text).tag.endswith("svg")
    for word in ("stdlib pretrain", "step", "nats per token", "train", "validation"):
        assert word in text


def test_without_validation_there_is_no_legend():
    assert "validation" not in svg(loss_curve(RECORDS, "x"))


def test_one_point_is_no_curve():
    assert loss_curve([], "x") is None
    assert loss_curve([{"step": 1, "loss": 3.0}, {"step": 1, "validation_loss": 3.0}], "x") is None


def test_a_long_run_stays_small_and_keeps_its_ends():
    from tasks.loss_curve import _thinned

    points = [(step, 1.0) for step in range(100_001)]
    thinned = _thinned(points)
    assert len(thinned) <= MAX_POINTS + 1
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])
    assert len(loss_curve([{"step": step, "loss": loss} for step, loss in points], "x")) < 100_000


def test_the_page_shows_through():
    background = svg(loss_curve(RECORDS, "x"))
    assert "#ffffff" not in background
