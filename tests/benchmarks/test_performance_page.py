"""docs/performance.md is what the command makes of the stored JSON, and says what a reader has to know of a figure."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench
import pytest
from frame.figures import Figure, Limit, Wanted
from frame.page import page

ROOT = Path(__file__).parents[2]
MACHINE = {
    "processor": "Some CPU",
    "flags": ["avx2"],
    "cores": 2,
    "memory_gb": 24,
    "gpu": "none",
    "system": "Linux 6",
    "python": "3.11.7",
    "versions": {"torch": "2.13.0"},
    "commit": "abc",
}


def results(*figures: Figure, error: str = "", toy: bool = False) -> dict[str, Any]:
    found = {"figures": [json.loads(json.dumps(one.as_json())) for one in figures], "error": error, "toy": toy}
    about = "Against TRL: the same\nchats.\n\nMore of it."
    measured = {"about": about, "machine": MACHINE, "seconds": 95, "date": "2026-12-01 05:00", "command": "python x"}
    return {"questions": {"sft": found | measured}}


def test_the_page_is_what_the_command_makes_of_the_stored_json(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "none", "--page", str(tmp_path / "page.md")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "page.md").read_text() == (ROOT / "docs" / "performance.md").read_text()


def test_no_stored_figure_is_a_toy_s() -> None:
    stored = json.loads((ROOT / "docs" / "performance.json").read_text())
    assert not any(found["toy"] for found in stored["questions"].values())


def test_a_row_has_both_sides_their_ratio_the_limit_and_the_verdict() -> None:
    figure = Figure(
        *("packed", "tokens/s", [200.0, 210.0, 220.0, 200.0, 190.0, 205.0], [100.0] * 6, "TRL"),
        wanted=Wanted("ratio", ">=", 2.0),
        limit=Limit("matrix products", 405.0),
        memory=(1000.0, 2000.0),
        note="equal losses",
    )
    text = page(results(figure))
    assert (
        "| packed | 202 tokens/s | 100 (TRL) | 2.02 (1.90 to 2.20) | ≥ 2× | met | 405 (matrix products) | 50% | "
        "1,000 MB / 2,000 MB |" in text
    )
    assert "- packed: equal losses" in text
    assert "## Sft\n\nAgainst TRL: the same chats.\n\nMore of it." in text
    said = "`python x`, 2026-12-01 05:00, 2 min, commit abc: 2 cores of Some CPU (avx2), 24 GB, GPU: none"
    assert said in text
    assert "torch 2.13.0." in text


def test_what_failed_or_was_not_run_is_said() -> None:
    text = page(results(Figure("on a GPU", "tokens/s", [], not_run="no GPU"), error="Trace\nFailed: no room"))
    assert re.search(r"\| on a GPU \| no GPU \|.*\| not run \|", text)
    assert "Not all of it could be measured: Failed: no room." in text
    assert "mean nothing" in page(results(toy=True))


def test_each_question_is_a_file_and_each_file_is_asked() -> None:
    files = {path.stem for path in (ROOT / "benchmarks" / "questions").glob("*.py")} - {"__init__"}
    assert files == set(bench.QUESTIONS)


def test_a_question_that_fails_loses_neither_its_figures_nor_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Figure("rate", "tokens/s", [2.0], [1.0], "TRL", wanted=Wanted("ratio", ">=", 3.0)).as_json()
    answers = {
        "sft": {"figures": [shown], "error": "Failed: TRL ended with 1", "about": "One."},
        "chain": {"figures": [], "error": "", "about": "Two."},
    }
    monkeypatch.setattr(bench, "put", lambda name, given, limits: answers[name])
    monkeypatch.setattr(bench, "measured_limits", lambda toy: {})
    arguments = ["bench.py", "chain", "sft", "--json", str(tmp_path / "a.json"), "--page", str(tmp_path / "a.md")]
    monkeypatch.setattr(sys, "argv", arguments)
    assert bench.main() == 1
    kept = json.loads((tmp_path / "a.json").read_text())["questions"]
    assert list(kept) == ["sft", "chain"]
    assert kept["sft"]["figures"][0]["ours"] == [2.0]
    printed = capsys.readouterr().out
    assert "0 met, 1 missed, 0 not run" in printed
    assert "missed: sft: rate" in printed
    assert "failed: sft" in printed
    assert "TRL ended with 1" in (tmp_path / "a.md").read_text()


@pytest.mark.slow
def test_a_question_runs_from_start_to_end_at_toy_size(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "startup", "--toy", "--pairs", "1"]
    command += ["--json", str(tmp_path / "a.json"), "--page", str(tmp_path / "a.md")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "a.json").read_text())["questions"]["startup"]
    assert found["error"] == ""
    assert [one["what"] for one in found["figures"]][1::3] == ["titanflow plan stdlib", "a training's first step"]
    assert all(one["ours"][0] > one["limit"]["value"] for one in found["figures"][:4])
    assert "mean nothing" in (tmp_path / "a.md").read_text()


def test_an_unknown_question_is_refused_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "speed"])
    with pytest.raises(SystemExit, match="2"):
        bench.main()
    assert "no question is called speed; there are training, sft" in capsys.readouterr().err
