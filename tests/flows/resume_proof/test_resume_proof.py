import json
from pathlib import Path

import pytest
from finished_stage import evaluate_result, finish_training

from flows.resume_proof.comparison import Check, compare, compare_metrics
from titanflow.runs.manifest import Manifest, StageRecord
from titanflow.runs.results import PublishResult, write_result


def write_training(folder: Path, losses: list[float], batches: str = "abcdefgh", export: str = "1") -> Path:
    folder.mkdir(parents=True)
    records = [
        {"step": step, "loss": loss, "learning_rate": 1e-3 / step, "grad_norm": loss / 2, "seconds": id(records_of)}
        for step, loss in enumerate(losses, 1)
    ]
    records.append({"step": len(losses), "validation_loss": 2.0, "seconds": 1.0})
    records_of(folder, "metrics.jsonl", records)
    records_of(folder, "batches.jsonl", [{"step": step, "batch": batch} for step, batch in enumerate(batches, 1)])
    checkpoint = folder / "checkpoint" / f"step-{len(losses)}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "__0_0.distcp").write_text(str(losses[-1]))
    (checkpoint / ".metadata").write_text(str(folder))
    digests = {"model.safetensors": export}
    finish_training(folder, step=len(losses), export=folder / "export", export_digests=digests)
    return folder


def records_of(folder: Path, name: str, records: list[dict]) -> None:
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))


def write_rest(run: Path, score: float, card: str, config: str = "c") -> None:
    records = {stage: StageRecord(fingerprint=stage) for stage in ("pretrain", "evaluate", "publish")}
    (run / "manifest.json").write_text(Manifest(folder=run, stages=records).model_dump_json())
    scores = {"sft": {"kind": {"acc": score, "acc_stderr": 0.1}}}
    (run / "evaluate").mkdir()
    write_result(run / "evaluate", evaluate_result(scores=scores))
    (run / "publish").mkdir()
    files = {"config.json": config, "README.md": card, "titanflow.json": card}
    write_result(run / "publish", PublishResult(target="folder", location="/there", files=files))


def failed(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.found for check in checks if not check.passed}


LOSSES = [3.0, 2.5, 2.25, 2.0]


@pytest.fixture
def right(tmp_path: Path) -> Path:
    write_training(tmp_path / "right" / "pretrain", LOSSES)
    write_rest(tmp_path / "right", 0.5, "made on Monday")
    return tmp_path / "right"


def test_runs_that_came_to_the_same_are_equal_whenever_they_were_made(right: Path, tmp_path: Path) -> None:
    write_training(tmp_path / "killed" / "pretrain", LOSSES)
    write_rest(tmp_path / "killed", 0.5, "made on Tuesday")
    checks = compare(right, tmp_path / "killed")
    assert failed(checks) == {}
    assert [check.name for check in checks] == [
        "pretrain: steps",
        "pretrain: losses",
        "pretrain: the rest",
        "pretrain: data",
        "pretrain: checkpoint",
        "pretrain: export",
        "evaluate: scores",
        "publish: files",
    ]


def test_the_last_bit_counts(right: Path, tmp_path: Path) -> None:
    other = [3.0, 2.5, 2.2500000000000004, 2.0]
    write_training(tmp_path / "killed" / "pretrain", other, export="2")
    write_rest(tmp_path / "killed", 0.5000000000000001, "made on Monday", config="d")
    assert failed(compare(right, tmp_path / "killed")) == {
        "pretrain: losses": "step 3: grad_norm 1.125 → 1.1250000000000002",
        "pretrain: export": "1 of 1 files differ: model.safetensors: 1 → 2",
        "evaluate: scores": "1 of 2 scores differ: sft kind acc: 0.5 → 0.5000000000000001",
        "publish: files": "1 of 1 files differ: config.json: c → d",
    }


def test_another_number_of_ranks_has_a_tolerance_for_sums_and_none_for_data(right: Path, tmp_path: Path) -> None:
    near = [loss * (1 + 1e-6) for loss in LOSSES]
    write_training(tmp_path / "killed" / "pretrain", near, batches="abcXefgh", export="2")
    assert failed(compare_metrics("pretrain", right / "pretrain", tmp_path / "killed" / "pretrain", 1e-5)) == {}
    write_rest(tmp_path / "killed", 0.5, "made on Monday")
    assert failed(compare(right, tmp_path / "killed", 1e-5)) == {
        "pretrain: data": "1 of 8 batches differ: step 4: d → X"
    }
    assert set(failed(compare(right, tmp_path / "killed", 1e-7))) == {"pretrain: losses", "pretrain: data"}


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([0, 2, 3, 4], "training step 3 where training step 2 was"),
        ([0, 1, 1, 2, 3, 4], "training step 2 where training step 3 was"),
        ([0, 1, 2, 3], "4 records where 5 were"),
    ],
    ids=["gap", "repeat", "no validation"],
)
def test_a_gap_or_a_repeat_is_found(right: Path, tmp_path: Path, kept: list[int], expected: str) -> None:
    folder = write_training(tmp_path / "killed" / "pretrain", LOSSES)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[index] for index in kept))
    assert failed(compare_metrics("pretrain", right / "pretrain", folder)) == {"pretrain: steps": expected}


def test_data_that_nobody_recorded_is_not_taken_for_equal(right: Path, tmp_path: Path) -> None:
    write_training(tmp_path / "killed" / "pretrain", LOSSES)
    write_rest(tmp_path / "killed", 0.5, "made on Monday")
    (right / "pretrain" / "batches.jsonl").unlink()
    assert failed(compare(right, tmp_path / "killed")) == {
        "pretrain: data": f"unknown: {right} was trained without a record of its batches; remove it and prove again"
    }


def test_a_stage_that_never_finished_is_no_proof(right: Path, tmp_path: Path) -> None:
    write_training(tmp_path / "killed" / "pretrain", LOSSES)
    assert set(failed(compare(right, tmp_path / "killed"))) == {"evaluate", "publish"}


def test_checkpoints_that_both_scored_on_the_way_have_the_same_scores(right: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    write_training(killed / "pretrain", LOSSES)
    write_rest(killed, 0.5, "made on Monday")

    def score(run: Path, values: dict[int, float | None]) -> None:
        scored = [
            {"step": step, **({"failed": "gone"} if value is None else {"scores": {"kind": {"acc": value}}})}
            for step, value in values.items()
        ]
        records_of(run / "pretrain", "evaluations.jsonl", scored)

    score(right, {2: 0.25, 3: None, 4: 0.5})
    score(killed, {2: 0.25, 4: None})
    (check,) = [one for one in compare(right, killed) if one.name == "pretrain: scores on the way"]
    assert (check.passed, check.found) == (True, "1 scores equal")
    score(killed, {2: 0.26, 3: 0.5})
    assert failed(compare(right, killed)) == {
        "pretrain: scores on the way": "1 of 1 scores differ: step 2 kind acc: 0.25 → 0.26"
    }
