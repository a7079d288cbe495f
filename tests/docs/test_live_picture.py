"""The picture of the live view shows the figures and times of the run that it is made from."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from titanflow.runs.contract import StageRun
from titanflow.runs.results import PrepareResult, write_result

ROOT = Path(__file__).parents[2]
BEGAN = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
TIMES = {"prepare": (0, 21), "pretrain": (25, 200)}


def at(seconds: int) -> str:
    return datetime.fromtimestamp(BEGAN.timestamp() + seconds, UTC).isoformat(timespec="seconds")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two stages; the last record of 100 steps, each of a second, is written 150 seconds after the start."""
    folder = tmp_path / "main"
    for stage in TIMES:
        (folder / stage).mkdir(parents=True)
        config = {"training": {"steps": 100}} if stage == "pretrain" else {}
        StageRun(stage=stage, experiment="tiny", run="main", folder=folder / stage, config=config).write()  # type: ignore[arg-type]
    write_result(folder / "prepare", PrepareResult(datasets={"a": {"tokens": 4_400_000}}))
    records = [
        {"step": step, "loss": 8 - step / 20, "tokens_per_second": 11_300.0, "seconds": float(step)}
        for step in range(10, 101, 10)
    ]
    metrics = folder / "pretrain" / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    os.utime(metrics, (BEGAN.timestamp() + 150,) * 2)
    stages = {
        stage: {"fingerprint": "f", "started": at(begun), "finished": at(ended)}
        for stage, (begun, ended) in TIMES.items()
    }
    (folder / "manifest.json").write_text(json.dumps({"experiment": "tiny", "run": "main", "stages": stages}))
    return folder


def pictured(run: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(ROOT / "docs" / "live_picture.py"),
        str(run),
        "--out",
        str(run / "live.svg"),
        *options,
    ]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )


def test_a_picture_shows_what_the_view_showed(run: Path) -> None:
    done = pictured(run, "--stage", "pretrain", "--share", "0.4")
    assert done.returncode == 0, done.stderr
    svg = (run / "live.svg").read_text(encoding="utf-8")
    shown = html.unescape("".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))).replace("\xa0", " ")
    # Step 40 was written 40 seconds after the training began, which was 50 seconds after the run.
    assert "tiny / main  1:30  about 1:00 left" in shown
    assert "✓ prepare     0:21  1 dataset, 4,400,000 tokens" in shown
    assert "▸ pretrain    1:05  step 40 of 100, 1:00 left, 11k tokens/s" in shown
    assert "40%" in shown
    assert "loss 6.000" in shown
    assert not re.search(r"(url\(|href=)[\"']?https?:", svg)


@pytest.mark.parametrize(
    ("options", "message"), [(["--stage", "sft"], "has no stage sft"), (["--stage", "pretrain"], "hasn't finished")]
)
def test_what_is_missing_is_named(run: Path, options: list[str], message: str) -> None:
    if "finished" in message:
        path = run / "manifest.json"
        path.write_text(path.read_text().replace(at(200), ""))
    done = pictured(run, *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (run / "live.svg").exists()
