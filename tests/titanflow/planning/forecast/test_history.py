import json
import os
from pathlib import Path

import pytest

from titanflow.planning.forecast import history
from titanflow.planning.forecast.history import History, work_digest
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan, StagePlan

STARTED, FINISHED = "2026-11-20T02:00:00+00:00", "2026-11-20T02:01:40+00:00"


def stage(plan: Plan, name: str = "pretrain") -> StagePlan:
    found = plan.stage(name)
    assert found is not None
    assert found.forecast is not None
    return found


def write_run(workspace: Path, name: str, like: str, stage: str = "pretrain", finished: str = FINISHED) -> Path:
    """A run of which one stage is recorded: 100 s in all, 80 of them for 40 steps of 192 tokens."""
    folder = workspace / "tiny" / name
    (folder / stage).mkdir(parents=True)
    record = {"fingerprint": "f", "started": STARTED, "finished": finished, "forecast": {"like": like}}
    (folder / "manifest.json").write_text(json.dumps({"stages": {stage: record}}))
    values = {"step": 40, "seconds": 80.0, "tokens": 40 * 192, "tokens_per_second": 100.0}
    if finished:
        (folder / stage / "result.json").write_text(json.dumps(values))
    lines = [values | {"step": 20, "seconds": 30.0, "tokens": 20 * 192}, {"step": 20, "validation_loss": 1.0}]
    (folder / stage / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
    return folder


@pytest.mark.parametrize(
    ("setting", "is_same"),
    [
        ("pretrain.training.steps=500", True),
        ("pretrain.optimizer.lr=1e-3", True),
        ("pretrain.training.seq_len=64", False),
        ("pretrain.training.local_batch_size=2", False),
        ("pretrain.model.dim=64", False),
        ("pretrain.launcher.omp_num_threads=2", False),
        ("pretrain.activation_checkpoint.mode=full", False),
        ("pretrain.validation.freq=2", False),
    ],
)
def test_what_the_same_work_is(configs: Path, setting: str, is_same: bool) -> None:
    plain, changed = stage(make_plan("tiny", configs)), make_plan("tiny", configs, overrides=[setting])
    like = work_digest(stage(changed).run, changed.config, "a CPU")
    assert (like == work_digest(plain.run, make_plan("tiny", configs).config, "a CPU")) == is_same
    assert like != work_digest(stage(changed).run, changed.config, "another CPU")


def test_an_evaluation_of_another_model_is_other_work(configs: Path) -> None:
    plain, larger = make_plan("tiny", configs), make_plan("tiny", configs, overrides=["pretrain.model.dim=64"])
    digests = [work_digest(stage(plan, "evaluate").run, plan.config, "") for plan in (plain, larger)]
    assert digests[0] != digests[1]


def test_a_finished_run_is_measured(configs: Path, tmp_path: Path) -> None:
    planned = stage(make_plan("tiny", configs))
    write_run(tmp_path / "runs", "yesterday", planned.forecast.like)  # type: ignore[union-attr]
    write_run(tmp_path / "runs", "other", "another digest")
    found = stage(make_plan("tiny", configs)).forecast
    assert found is not None
    # 12 steps at 2 s each, and the 20 s that yesterday took around its training.
    assert (found.seconds, found.source) == (12 * 2.0 + 20.0, "measured on run yesterday")
    assert (found.tokens, found.tokens_per_second) == (12 * 192, 100.0)


def test_a_run_that_was_killed_is_measured_as_far_as_it_came(tmp_path: Path, configs: Path) -> None:
    run = stage(make_plan("tiny", configs)).run
    write_run(tmp_path / "runs", "main", "like", finished="")
    found = History(tmp_path / "runs").of(run, "like")
    assert found is not None
    assert (found.run, found.wall, found.around, found.seconds_per_step) == ("run main", None, None, 1.5)


def test_this_run_s_own_speed_goes_first(tmp_path: Path, configs: Path) -> None:
    run = stage(make_plan("tiny", configs)).run
    for name in ("main", "newer"):
        write_run(tmp_path / "runs", name, "like")
    found = History(tmp_path / "runs").of(run, "like")
    assert found is not None
    assert found.run == "run main"


def test_this_run_counts_however_many_are_newer(tmp_path: Path, configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stage(make_plan("tiny", configs)).run
    os.utime(write_run(tmp_path / "runs", "main", "like") / "manifest.json", (0, 0))
    write_run(tmp_path / "runs", "newer", "another digest")
    monkeypatch.setattr(history, "NEWEST", 1)
    found = History(tmp_path / "runs").of(run, "like")
    assert found is not None
    assert found.run == "run main"


def test_other_stages_take_what_they_took(tmp_path: Path, configs: Path) -> None:
    planned = stage(make_plan("tiny", configs), "evaluate")
    write_run(tmp_path / "runs", "yesterday", planned.forecast.like, "evaluate")  # type: ignore[union-attr]
    found = stage(make_plan("tiny", configs), "evaluate").forecast
    assert found is not None
    assert found.seconds == 100.0
    assert stage(make_plan("tiny", configs), "publish").forecast.seconds is None  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "[]", '{"stages": []}', '{"stages": {"pretrain": null}}', "not json"])
def test_a_manifest_that_can_t_be_read_measures_nothing(tmp_path: Path, configs: Path, text: str) -> None:
    run = stage(make_plan("tiny", configs)).run
    folder = write_run(tmp_path / "runs", "odd", "like")
    (folder / "manifest.json").write_text(text)
    assert History(tmp_path / "runs").of(run, "like") is None
