"""The live view's lines at fixed sizes, and what it hears from logs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import stage_in_pool
from flows.live import run_view
from flows.live.run_view import RunView
from tasks.ui import standing
from tasks.ui.standing import MOST_LOSSES, Standing
from tasks.ui.watcher import watched_by
from titanflow.planning.forecast.forecast import Forecast
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.runs.contract import StageRun
from titanflow.runs.results import PrepareResult

STAGES = ("prepare", "pretrain", "sft", "evaluate", "publish")
SECONDS = {"pretrain": 150.0, "sft": 95.0, "evaluate": 70.0, "publish": None}


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The view's clock, which the test moves."""
    clock = SimpleNamespace(now=0.0)
    for module in (run_view, standing):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """All stages; prepare is cached, and publish was never measured."""
    stages = []
    for stage in STAGES:
        config = {"training": {"steps": 400}} if stage in ("pretrain", "sft") else {}
        folder = tmp_path / stage
        folder.mkdir()
        run = StageRun(stage=stage, experiment="stdlib", run="main", folder=folder, config=config)
        state = "CACHED" if stage == "prepare" else "RUN"
        forecast = None if state == "CACHED" else Forecast("like", seconds=SECONDS[stage])
        stages.append(StagePlan(stage, state, "nothing changed" if forecast is None else "new", run, forecast=forecast))
    return Plan("stdlib", "main", tmp_path, stages, None)  # type: ignore[arg-type]


@pytest.fixture
def view(plan: Plan, at: SimpleNamespace) -> RunView:
    """Pretraining runs since second 10."""
    view = RunView(plan)
    view.plans(plan)
    view.ends("prepare", PrepareResult(datasets={"a": {"tokens": 4_400_000}}))
    at.now = 10.0
    view.begins(of_stage(plan, "pretrain"))
    return view


def of_stage(plan: Plan, stage: str) -> Standing:
    found = plan.stage(stage)
    assert found is not None
    return Standing(found.run)


def running(view: RunView, stage: str) -> Standing:
    found = view._rows[stage].standing  # type: ignore[index]
    assert found is not None
    return found


def shown(view: RunView, width: int = 80, height: int = 40, ascii_only: bool = False) -> list[str]:
    return [line.plain.rstrip() for line in view.lines(width, height, ascii_only)]


def train(view: RunView, at: SimpleNamespace) -> None:
    """The first look sees step 20, the second one 80 steps later."""
    at.now = 20.0
    running(view, "pretrain").add([{"step": 20, "loss": 8.0, "tokens_per_second": 11_300.0}], at.now)
    at.now = 60.0
    records = [{"step": step, "loss": 8.0 - step / 20} for step in range(30, 101, 10)]
    running(view, "pretrain").add([*records, {"step": 100, "validation_loss": 3.25}], at.now)


def test_each_stage_is_shown_with_what_is_known_of_it(view: RunView, at: SimpleNamespace) -> None:
    train(view, at)
    assert shown(view) == [
        "stdlib / main  1:00  about 5:15 left without publish",
        "✓ prepare           1 dataset, 4,400,000 tokens",
        "▸ pretrain    0:50  step 100 of 400, 2:30 left, 11k tokens/s",
        "  " + "━" * 15 + "─" * 45 + "  25%",
        "  loss 3.000 █▆▅▅▄▃▂▂▁▁  validation 3.250",
        "· sft        ~1:35",
        "· evaluate   ~1:10",
        "· publish",
    ]


def test_the_time_left_runs_down_between_two_looks(view: RunView, at: SimpleNamespace) -> None:
    train(view, at)
    at.now = 70.0
    assert "2:20 left" in shown(view)[2]
    at.now = 1000.0
    assert "0:00 left" in shown(view)[2]


@pytest.mark.parametrize("width", [40, 20, 1])
def test_no_line_is_wider_than_the_terminal(view: RunView, at: SimpleNamespace, width: int) -> None:
    train(view, at)
    lines = view.lines(width, 40, ascii_only=False)
    assert len(lines) == 8
    assert all(line.cell_len <= width for line in lines)
    if width == 40:
        assert lines[2].plain == "▸ pretrain    0:50  step 100 of 400, 2:…"
        assert lines[3].plain.endswith(" 25%")


def test_in_a_low_terminal_the_running_stage_stays(view: RunView, at: SimpleNamespace) -> None:
    train(view, at)
    lines = shown(view, height=4)
    assert lines[0].startswith("▸ pretrain")
    assert lines[3].startswith("stdlib / main")
    assert len(shown(view, height=1)) == 1


@pytest.mark.parametrize("width", [80, 40, 20, 2])
def test_a_terminal_without_unicode_gets_ascii(view: RunView, at: SimpleNamespace, width: int) -> None:
    train(view, at)
    view.says("asking the cluster")
    lines = shown(view, width, ascii_only=True)
    assert all(line.isascii() and len(line) <= width for line in lines), lines


def test_a_stage_that_counts_nothing_shows_what_its_log_says_and_a_bar_that_moves(
    plan: Plan, view: RunView, at: SimpleNamespace
) -> None:
    running(view, "pretrain")
    log = plan.folder / "pretrain" / "pretrain.log"
    log.write_text("$ torchrun …\n[titan] 2026-11-30 03:19:24,408 - root - INFO - Loading tokenizer\n")
    assert view.look() == []
    first = shown(view)
    assert first[2].endswith("0:00  Loading tokenizer")
    at.now = 12.0
    assert shown(view)[3] != first[3]
    assert set(shown(view)[3].strip()) == {"━", "─"}


def test_what_a_job_waits_for_is_said_until_it_moves(view: RunView, at: SimpleNamespace) -> None:
    running(view, "pretrain").said = "job 7 waits: Priority"
    assert shown(view)[2].endswith("job 7 waits: Priority")
    train(view, at)
    assert "Priority" not in "\n".join(shown(view))


def test_an_evaluation_shows_its_task_and_its_items(plan: Plan, view: RunView, at: SimpleNamespace) -> None:
    view.begins(of_stage(plan, "evaluate"))
    record = {"step": 2, "steps": 8, "model": "sft", "task": "kind", "scores": {"acc": 0.93, "acc_stderr": 0.01}}
    running(view, "evaluate").add([record], 11.0)
    (plan.folder / "evaluate" / "lm_eval.log").write_text(
        "Tokenizing inputs: 100%|███| 40/40 [00:00<00:00]\r\n"
        "Running loglikelihood requests:   0%|          | 0/9 [00:00<?, ?it/s]\r"
        "Running loglikelihood requests:  33%|███▎      | 3/9 [00:01<00:02,  2.9it/s]"
    )
    view.look()
    text = "\n".join(shown(view))
    assert "step 2 of 8" in text
    assert "sft kind acc 0.93" in text
    assert "Running loglikelihood requests 3 of 9" in text


def test_a_stage_in_another_pool_is_followed_by_its_records(plan: Plan, view: RunView, at: SimpleNamespace) -> None:
    stage = plan.stage("sft")
    assert stage is not None
    stage.run.config["launcher"] = {"pool": "small"}
    with watched_by(view):
        look = stage_in_pool._look(stage)
    assert shown(view)[4].endswith("in the work pool small")
    (plan.folder / "sft" / "metrics.jsonl").write_text('{"step": 4, "loss": 2.5}\n')
    look()
    assert shown(view)[4].endswith("step 4 of 400")
    assert stage_in_pool._look(stage)() is None


def test_warnings_are_told_once_and_counted(plan: Plan, view: RunView) -> None:
    log = plan.folder / "pretrain" / "pretrain.log"
    log.write_text("10:00:00 INFO all is well\n")
    assert view.look() == []
    with log.open("a") as file:
        file.write("[titan] 2026-11-30 03:19:24,441 - root - WARNING - 2 rows are long\n")
        file.write("[rank1]:[titan] 2026-11-30 03:19:25,017 - root - WARNING - 2 rows are long\n")
        file.write(
            "/lib/torch/x.py:485: FutureWarning: old\n  return func()\nWARNING chats: 3 left out\n10:00:01 WARNI"
        )
    told = [line.plain.removeprefix("warning: pretrain: ") for line in view.look()]
    assert told == ["2 rows are long", "FutureWarning: old", "chats: 3 left out"]
    with log.open("a") as file:
        file.write("NG torn\n")
    assert [line.plain for line in view.look()] == ["warning: pretrain: torn"]
    assert view.look() == []
    assert "  4 warnings in pretrain/pretrain.log" in shown(view)


@pytest.mark.parametrize(
    ("error", "mark"), [(ValueError("x"), "✗"), (KeyboardInterrupt(), "■"), (SystemExit(143), "■")]
)
def test_an_end_before_the_end_is_marked(view: RunView, at: SimpleNamespace, error: BaseException, mark: str) -> None:
    train(view, at)
    assert view.shows_steps
    view.close(error)
    assert shown(view)[0] == "stdlib / main  1:00"
    assert shown(view)[2] == f"{mark} pretrain    0:50  step 100 of 400"
    assert not view.shows_steps


def test_another_attempt_begins_anew(plan: Plan, view: RunView, at: SimpleNamespace) -> None:
    train(view, at)
    view.begins(of_stage(plan, "pretrain"))
    assert shown(view)[2] == "▸ pretrain    0:00"


def test_the_curve_keeps_its_first_point_and_few_others(plan: Plan) -> None:
    of_training = of_stage(plan, "sft")
    of_training.add([{"step": step, "loss": float(step)} for step in range(10_000)], 1.0)
    assert of_training.losses[0] == 0.0
    assert of_training.losses == sorted(of_training.losses)
    assert MOST_LOSSES / 2 <= len(of_training.losses) <= MOST_LOSSES
    assert json.dumps(of_training.newest) == '{"step": 9999, "loss": 9999.0}'
