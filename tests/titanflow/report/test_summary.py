import io
from pathlib import Path

import pytest
from finished_stage import evaluate_result
from rich.console import Console

from titanflow.planning.forecast.forecast import Forecast
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.report.summary import curve, losses, render_summary, shown_metrics
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import Manifest, StageRecord
from titanflow.runs.results import (
    EvaluateResult,
    GateDecision,
    PublishResult,
    Threshold,
    write_result,
)
from titanflow.runs.scores.cut import CutPrompts


def test_a_falling_loss_is_a_falling_line() -> None:
    line = curve([8.0, 6.0, 4.0, 2.0, 1.0])
    assert (line[0], line[-1]) == ("█", "▁")
    assert list(line) == sorted(line, reverse=True)


def test_the_line_keeps_first_and_last_and_fits() -> None:
    values = [5.0, *([3.0] * 1000), 9.0]
    line = curve(values, width=10)
    assert len(line) == 10
    assert line[-1] == "█"


@pytest.mark.parametrize(("values", "expected"), [([], ""), ([2.0], "▁"), ([2.0, 2.0], "▁▁")])
def test_what_has_no_slope(values: list[float], expected: str) -> None:
    assert curve(values) == expected


def test_validation_lines_are_no_training_losses(tmp_path: Path) -> None:
    assert losses(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 3.5}\n{"step": 1, "validation_loss": 9.0}\n')
    assert losses(tmp_path) == [3.5]


def test_of_perplexities_only_bits_per_byte_is_shown() -> None:
    scores = {"text": {"bits_per_byte": 2.0, "byte_perplexity": 4.0}, "kind": {"acc": 0.5, "acc_stderr": 0.1}}
    result = evaluate_result(scores={"base": scores})
    assert shown_metrics(result) == [("text", "bits_per_byte"), ("kind", "acc")]


def test_scores_of_filters_keep_their_errors_and_a_question_its_line(tmp_path: Path) -> None:
    scores = {"exact_match,strict": 0.5, "exact_match_stderr,strict": 0.02}
    result = evaluate_result(
        scores={"sft": {"sums": scores, "bytes": {"bits_per_byte": 2.0}, "mine": {"bits_per_byte": 3.0}}},
        reference={"bytes": 1.5},
        cut={"sft": {"sums": CutPrompts(prompts=20, of=20, tokens=321, longest=445)}},
        left_out={"malformed": 1200, "blank": 1},
        examples=[{"task": "sums", "question": "First line\n\nlast line", "expected": "1", "sft": "2"}],
    )
    (tmp_path / "evaluate").mkdir()
    kept = tmp_path / "evaluate" / "samples_sft_sums.jsonl"
    assert kept.name not in shown(tmp_path, result)
    kept.touch()
    text = shown(tmp_path, result)
    assert kept.name in text
    assert "0.500 ± 0.020" in text
    assert "sft sums: 20 of 20 prompts cut, up to 321 tokens of 445" in text
    assert "Of the rows that were held out, 1,200 malformed, 1 blank were left out as items." in text
    assert "First line last line" in text
    (compared, alone) = [line for line in text.splitlines() if "bits_per_byte" in line]
    assert "1.500" in compared
    assert "1.500" not in alone


def shown(folder: Path, result: PublishResult | EvaluateResult) -> str:
    run = StageRun(stage=result.stage, experiment="tiny", run="main", folder=folder)
    write_result(folder, result)
    console = Console(width=160, file=io.StringIO())
    console.print(render_summary(Plan("tiny", "main", folder, [StagePlan(result.stage, "RUN", "new", run)], None)))  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_forecast_beside_what_it_took(tmp_path: Path) -> None:
    run = StageRun(stage="publish", experiment="tiny", run="main", folder=tmp_path / "publish")
    stage = StagePlan("publish", "RUN", "new", run, forecast=Forecast("like", seconds=110.0, source="measured"))
    write_result(run.folder, PublishResult(target="folder", location="/model"))
    times = {"started": "2026-11-21T09:00:00+00:00", "finished": "2026-11-21T09:01:58+00:00"}
    forecast = stage.forecast.as_json() if stage.forecast else {}
    record = StageRecord(fingerprint="f", forecast=forecast, **times)
    manifest = Manifest(folder=tmp_path, stages={"publish": record})
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    console = Console(width=160, file=io.StringIO())
    console.print(render_summary(Plan("tiny", "main", tmp_path, [stage], None)))  # type: ignore[arg-type]
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "forecast 1 min 50 s, took 1 min 58 s (publish)" in text


def test_what_became_of_a_push(tmp_path: Path) -> None:
    threshold = Threshold(task="kind", metric="acc", value=0.7, bound=0.8, passed=False)
    gate = GateDecision(passed=False, reason="a threshold is missed [sic]", thresholds=[threshold])
    result = PublishResult(target="folder", location="/model", status="held back", gate=gate)
    held_back = shown(tmp_path, result)
    assert "Held back: a threshold is missed [sic]; nothing was written to /model" in held_back
    assert "kind/acc  0.7, the threshold is 0.8: not passed" in held_back
    assert "Published" not in held_back
    assert "Would publish /model" in shown(tmp_path, result.model_copy(update={"status": "dry run", "gate": None}))
    assert "Published /model" in shown(tmp_path, PublishResult(target="folder", location="/model"))
    proposed = PublishResult(target="hub", status="proposed", location="https://hub/pr/1", commit="c" * 40)
    text = shown(tmp_path, proposed)
    assert "Proposed, not published yet: https://hub/pr/1" in text
    assert "tagged" not in text
    assert "titanflow chat" not in text + held_back


def test_the_next_command_is_as_a_shell_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for location, told in (("my runs/model", "'my runs/model'"), ("/else/model", "/else/model")):
        text = shown(tmp_path, PublishResult(target="folder", location=str(tmp_path / location)))
        assert f"talk with it: titanflow chat {told}" in text
    text = shown(tmp_path, PublishResult(target="hub", repo_id="me/it", location="https://hub/me/it", commit="c" * 40))
    assert "talk with it: titanflow chat me/it" in text
