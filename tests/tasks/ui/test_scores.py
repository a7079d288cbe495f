from __future__ import annotations

import base64
from typing import Any

from tasks.ui.scores import score_curves, score_rows, told

SCORED: dict[str, Any] = {
    "step": 500,
    "part": "dev",
    "scores": {"kind": {"acc": 0.6125, "acc_stderr": 0.03}, "bytes": {"bits_per_byte": 2.25}},
    "samples": {"kind": 200},
    "seconds": 12.34,
}


def test_a_line_has_each_score_with_its_items_and_no_errors_of_scores() -> None:
    assert told(SCORED) == "kind acc 0.613 on 200 items of dev, bytes bits_per_byte 2.25 (12.3 s)"
    assert told({**SCORED, "part": "", "scores": {"kind": {"acc": 0.5}}}) == "kind acc 0.5 on 200 items (12.3 s)"


def test_the_table_says_of_a_step_why_it_has_no_score() -> None:
    assert score_rows([SCORED, {"step": 1000, "failed": "killed"}]) == [
        {"step": 500, "task": "kind", "score": "acc 0.6125"},
        {"step": 500, "task": "bytes", "score": "bits_per_byte 2.25"},
        {"step": 1000, "task": "", "score": "not scored: killed"},
    ]


def test_a_curve_needs_two_points() -> None:
    assert score_curves([SCORED]) is None
    curves = score_curves([SCORED, {**SCORED, "step": 1000}])
    assert curves is not None
    svg = base64.b64decode(curves.partition(",")[2]).decode()
    assert "kind" in svg
    assert "bits_per_byte" in svg
