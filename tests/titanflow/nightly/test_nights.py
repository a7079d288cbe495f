import json
from pathlib import Path

import pytest
from night_runs import note, publish, train, write_night
from typer.testing import CliRunner

from titanflow.cli.main import app
from titanflow.common.errors import DataError
from titanflow.common.file_lock import held
from titanflow.nightly.table import COLUMNS, NightRow, markdown_table, read_nights
from titanflow.runs.contract import StageRun
from titanflow.runs.errors import StageError, write_error
from titanflow.runs.manifest import Manifest, StageRecord
from titanflow.runs.results import EvaluateResult, GateDecision, PublishResult, TrackerRecord, write_result


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A published night, a skipped one, and three that nobody ended."""
    runs = tmp_path / "runs" / "nights"
    publish(write_night(runs, "2026-11-01"))
    train(runs / "2026-11-01")
    write_night(runs, "2026-11-02", state="skipped", began="", message="10 h late")
    write_night(runs, "2026-11-03", state="", ended="")
    write_error(_stage(runs, "2026-11-03", "sft"), StageError(type="ValueError", message="a | b\nmore"))
    killed = write_night(runs, "2026-11-04", state="", ended="")
    stages = {"pretrain": StageRecord(fingerprint="f")}
    (killed / "manifest.json").write_text(Manifest(folder=killed, stages=stages).model_dump_json())
    write_night(runs, "2026-11-05", state="", ended="")
    return runs


def _stage(runs: Path, day: str, stage: str) -> Path:
    folder = runs / day / stage
    folder.mkdir()
    note(runs / day, stage)
    return folder


@pytest.mark.parametrize(
    ("day", "file"),
    [
        ("2026-11-01", "night.json"),
        ("2026-11-01", "pretrain/result.json"),
        ("2026-11-03", "sft/error.json"),
        ("2026-11-04", "manifest.json"),
    ],
)
@pytest.mark.parametrize(
    ("text", "told"), [("{", "can't be read"), ('{"date": 1, "stage": 1, "type": 1, "stages": 1}', "another version")]
)
def test_a_damaged_file_is_named(runs: Path, day: str, file: str, text: str, told: str) -> None:
    path = runs / day / file
    assert path.is_file()
    path.write_text(text)
    with pytest.raises(DataError, match=f"{path}: {told}"):
        read_nights(runs)


def test_each_night_s_state_and_cause_newest_first(runs: Path) -> None:
    with held(runs / "2026-11-05"):
        rows = read_nights(runs)
    assert [(row.date, row.state, row.cause) for row in rows] == [
        ("2026-11-05", "running", ""),
        ("2026-11-04", "stopped", "in pretrain, without an error"),
        ("2026-11-03", "failed", "sft: ValueError: a | b"),
        ("2026-11-02", "skipped", "10 h late"),
        ("2026-11-01", "published", ""),
    ]
    assert (rows[-1].loss, rows[-1].seconds, rows[-1].link) == (2.5, 3900.0, "/published")


def test_a_night_that_was_run_by_hand_is_told_by_what_it_left(runs: Path) -> None:
    by_hand = write_night(runs, "2026-11-06", state="", ended="")
    publish(by_hand, "held back")
    trained_only = write_night(runs, "2026-11-07", state="", ended="")
    train(trained_only)
    (trained_only / "plan.json").write_text(json.dumps({"stages": [{"stage": "pretrain"}]}))
    a_part_alone = write_night(runs, "2026-11-08", state="", ended="")
    train(a_part_alone)
    note(a_part_alone, "sft", finished="2026-11-08T03:05:00+00:00")
    (a_part_alone / "plan.json").write_text(json.dumps({"stages": [{"stage": "pretrain"}]}))
    assert [row.state for row in read_nights(runs)[:3]] == ["finished", "finished", "held back"]


def test_a_table_of_markdown_keeps_its_columns(runs: Path) -> None:
    lines = markdown_table(read_nights(runs)).splitlines()
    assert len(lines) == 7
    assert all(line.replace("\\|", "").count("|") == len(COLUMNS) + 1 for line in lines)


def test_a_ui_s_table_has_links_and_a_first_night_says_that_it_was_compared_with_nothing(runs: Path) -> None:
    gate = GateDecision(passed=True, reason="nothing was published here before")
    address = "https://huggingface.co/me/tiny"
    write_result(runs / "2026-11-01/publish", PublishResult(target="hub", location=address, gate=gate))
    record = TrackerRecord(id="1", mode="online", url="https://wandb.ai/me/tiny/runs/1")
    (runs / "2026-11-01/pretrain/wandb.json").write_text(record.model_dump_json(), encoding="utf-8")
    row = read_nights(runs)[-1]
    assert (row.cells()[4], row.cells()[-1], row.wandb) == (gate.reason, address, record.url)
    shown = markdown_table([row]).splitlines()[-1]
    assert shown.endswith(f" | [{address}]({address}), [W&B]({record.url}) |")
    assert markdown_table([NightRow("2026-11-21", "2026-11-21", "failed", cause="no disk")]).endswith(" | no disk |")


def test_a_copied_folder_is_nobody_s_night(runs: Path) -> None:
    (runs / "2026-11-01").rename(runs / "kept-for-the-paper")
    assert "2026-11-01" not in [row.date for row in read_nights(runs)]


@pytest.mark.parametrize(("seconds", "text"), [(None, ""), (190.0, "3 min 10 s"), (7500.0, "2 h 5 min")])
def test_a_night_that_never_ended_has_no_duration(seconds: float | None, text: str) -> None:
    cells = NightRow("2026-11-21", "2026-11-21", "running", seconds=seconds).cells()
    assert dict(zip(COLUMNS, cells, strict=True))["time"] == text


def test_the_command_prints_the_table_and_what_the_next_night_removes(runs: Path) -> None:
    options = ["nights", "stdlib_nightly", "--set", "exp_name=nights", "--set", f"workspace={runs.parent}"]
    shown = CliRunner().invoke(app, [*options, "--set", "nightly.keep=2"])
    assert shown.exit_code == 0, shown.output
    assert [line.split()[1] for line in shown.stdout.splitlines()[1:6]] == [
        "stopped",
        "stopped",
        "failed",
        "skipped",
        "published",
    ]
    # The oldest was published last, and the one that was left out goes with what is older than the newest two.
    assert shown.stdout.splitlines()[-1] == "the next night removes 2026-11-03, 2026-11-02"
    printed = json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout)
    assert [night["state"] for night in printed["nights"]] == [
        "stopped",
        "stopped",
        "failed",
        "skipped",
        "published",
    ]
    assert printed["nights"][-1]["loss"] == 2.5


def test_of_several_publications_each_has_its_scores_and_one_that_left_a_model_counts(runs: Path) -> None:
    folder = write_night(runs, "2026-11-22", state="", ended="")
    for name, model, value in (("evaluate", "sft", 0.5), ("eval_b", "pretrain", 0.25)):
        scores = {model: {"kind": {"acc": value}}, "other": {"kind": {"acc": 1.0}}}
        result = EvaluateResult(stage=name, scores=scores, folders={}, digests={})
        write_result(folder / name, result)
        note(folder, name, finished="2026-11-22T03:00:00+00:00")
    made = {"publish": ("evaluate", "sft", "held back"), "publish_b": ("eval_b", "pretrain", "published")}
    for name, (evaluation, model, status) in made.items():
        config = {"evaluation": evaluation, "model": model}
        StageRun(stage=name, kind="publish", experiment="e", run="r", folder=folder / name, config=config).write()
        location = f"/{name}"
        write_result(folder / name, PublishResult(stage=name, target="folder", location=location, status=status))
        note(folder, name, finished="2026-11-22T03:05:00+00:00")
    row = next(one for one in read_nights(runs) if one.date == "2026-11-22")
    assert row.scores == {"publish kind/acc": 0.5, "publish_b kind/acc": 0.25}
    assert (row.state, row.link) == ("published", "/publish_b")
