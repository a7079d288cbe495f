import json
from pathlib import Path

from titanflow.runs.metrics import read_metrics


def line(step: int) -> str:
    return json.dumps({"step": step}) + "\n"


def test_all_metrics_are_read_but_a_half_written_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text(line(1) + line(2) + '{"st')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(1) + '{"step": \n' + line(3))
    assert read_metrics(path) == [{"step": 1}, {"step": 3}]
