import json
import os
from pathlib import Path

import pytest

from flows.resume_proof.kill_points import Phase, Position, draw, last_step, phases
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import Manifest, StageRecord

PHASES = [
    Phase("prepare", "work", 4.0),
    Phase("pretrain", "start", 5.0),
    Phase("pretrain", "train", 60.0, 300, 50),
    Phase("pretrain", "save", 6.0, 300, 50),
    Phase("pretrain", "export", 2.0),
    Phase("evaluate", "work", 20.0),
    Phase("publish", "work", 3.0),
]


def test_the_same_seed_draws_the_same_moments_in_the_runs_order() -> None:
    points = draw(PHASES, 30, seed=4)
    assert points == draw(PHASES, 30, seed=4)
    assert points != draw(PHASES, 30, seed=5)
    assert [point.position for point in points] == sorted(point.position for point in points)


def test_each_phase_has_a_moment_where_there_are_enough_and_the_longest_has_most() -> None:
    points = draw(PHASES, 60, seed=0)
    drawn = [(point.stage, point.phase) for point in points]
    assert set(drawn) == {(phase.stage, phase.name) for phase in PHASES}
    assert drawn.count(("pretrain", "train")) > len(points) / 3
    assert 0 < sum(point.alone for point in points) < len(points)
    steps = {phase: [point.step for point in points if point.phase == phase] for phase in ("train", "save")}
    assert all(1 <= step <= 300 for step in steps["train"])
    assert all(step % 50 == 0 and 50 <= step <= 300 for step in steps["save"])
    took = {(phase.stage, phase.name): phase.seconds for phase in PHASES}
    assert all(point.seconds < took[point.stage, point.phase] for point in points if point.seconds)


def test_of_few_moments_the_first_are_in_the_trainings() -> None:
    sft = [Phase("sft", "start", 50.0), Phase("sft", "train", 1.0, 10, 5)]
    assert [(point.stage, point.phase) for point in draw([*PHASES, *sft], 2, seed=3)] == [
        ("pretrain", "train"),
        ("sft", "train"),
    ]


def test_one_stage_may_be_asked_for() -> None:
    assert {point.stage for point in draw(PHASES, 10, seed=0, stages=["evaluate"])} == {"evaluate"}
    assert draw(PHASES, 0, seed=0) == []
    with pytest.raises(ValueError, match="no phase"):
        draw(PHASES, 1, seed=0, stages=["sft"])


def test_phases_are_measured_by_when_a_stage_wrote_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "pretrain"
    config = {"checkpoint": {"interval": 4}, "training": {"steps": 10}}
    StageRun(stage="pretrain", experiment="e", run="r", folder=folder, config=config).write()
    records = [{"step": step, "seconds": 0.5 + step} for step in range(1, 11)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "result.json").write_text("{}")
    (tmp_path / "prepare").mkdir()
    StageRun(stage="prepare", experiment="e", run="r", folder=tmp_path / "prepare").write()
    (tmp_path / "prepare" / "result.json").write_text("{}")
    for path, at in (
        ("prepare/run.yaml", 100),
        ("prepare/result.json", 103),
        ("pretrain/run.yaml", 104),
        ("pretrain/metrics.jsonl", 118),
        ("pretrain/result.json", 120),
    ):
        os.utime(tmp_path / path, (at, at))
    records = {stage: StageRecord(fingerprint=stage) for stage in ("prepare", "pretrain")}
    (tmp_path / "manifest.json").write_text(Manifest(folder=tmp_path, stages=records).model_dump_json())
    found = {(phase.stage, phase.name): phase for phase in phases(tmp_path)}
    assert {key: phase.seconds for key, phase in found.items()} == pytest.approx(
        {
            ("prepare", "work"): 3,
            ("pretrain", "start"): 5,
            ("pretrain", "train"): 9,
            ("pretrain", "save"): 0.9,
            ("pretrain", "export"): 2,
        }
    )
    assert (found["pretrain", "train"].steps, found["pretrain", "save"].interval) == (10, 4)


def test_the_last_step_is_that_of_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_step(path) == 0
    path.write_text('{"step": 1}\n{"step": 2, "loss": 3.0}\n{"step": 3, "lo')
    assert last_step(path) == 2


def test_positions_are_ordered_as_a_run_goes() -> None:
    assert Position(-1, 0) < Position(0, 0) < Position(1, 1, 7) < Position(1, 1, 8) < Position(1, 2) < Position(2, 0)
