from pathlib import Path

import pytest
from finished_stage import finish_training
from night_runs import note, publish, train, write_night

from titanflow.common.file_lock import held
from titanflow.nightly.retention import remove_old, to_remove
from titanflow.runs.contract import RUN_FILE, StageRun


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Five nights that began, and what is no night."""
    runs = tmp_path / "workspace" / "e"
    for day in range(1, 6):
        write_night(runs, f"2026-11-0{day}", state="failed")
    (runs / "main").mkdir()
    (runs / "2026-10-30").mkdir()
    return runs


def left(runs: Path) -> list[str]:
    return sorted(path.name for path in runs.iterdir())


def test_the_newest_nights_stay_and_what_is_no_night(runs: Path) -> None:
    assert to_remove(runs, 2, "2026-11-05").removed == ["2026-11-02", "2026-11-01"]
    assert remove_old(runs, 2, "2026-11-05").removed == ["2026-11-02", "2026-11-01"]
    assert left(runs) == ["2026-10-30", "2026-11-03", "2026-11-04", "2026-11-05", "main"]


def test_without_a_number_all_stay(runs: Path) -> None:
    before = left(runs)
    assert remove_old(runs, None) == to_remove(runs, 9)
    assert left(runs) == before


def test_what_was_published_last_and_what_the_next_night_continues_stay(runs: Path) -> None:
    publish(runs / "2026-11-01")
    publish(runs / "2026-11-02")
    publish(runs / "2026-11-03", "held back")
    train(runs / "2026-11-03")
    train(runs / "2026-11-01")
    found = remove_old(runs, 0, "2026-11-05")
    assert found.kept == {"2026-11-02": "published last", "2026-11-03": "the next night may continue from it"}
    assert found.removed == ["2026-11-04", "2026-11-01"]


def test_what_another_run_builds_on_stays(runs: Path) -> None:
    checkpoint = train(runs / "2026-11-01")
    train(runs / "2026-11-02", base=str(checkpoint))
    train(runs / "2026-11-05")
    # The trained night has the weights itself; one that failed would need them to start again.
    unfinished = runs / "2026-11-04" / "pretrain"
    config = {"checkpoint": {"initial_load_path": str(runs / "2026-11-02" / "pretrain" / "checkpoint" / "step-10")}}
    StageRun(stage="pretrain", experiment="e", run="2026-11-04", folder=unfinished, config=config).write()
    tuned = runs.parent / "chat" / "main" / "sft"
    base = runs / "2026-11-03" / "pretrain"
    StageRun(stage="sft", experiment="chat", run="main", folder=tuned, base=base).write()
    found = remove_old(runs, 0, "2026-11-05")
    assert found.kept == {"2026-11-03": "chat/main builds on it", "2026-11-02": "e/2026-11-04 builds on it"}
    assert found.removed == ["2026-11-04", "2026-11-01"]


def test_a_pretraining_with_a_base_needs_it_however_far_it_came(runs: Path) -> None:
    train(runs / "2026-11-03")
    train(runs / "2026-11-05")
    tuned, base = runs.parent / "text" / "main" / "pretrain", runs / "2026-11-03" / "pretrain"
    StageRun(stage="pretrain", experiment="text", run="main", folder=tuned, base=base).write()
    finish_training(tuned)
    note(tuned.parent, "pretrain", finished="2026-11-21T03:00:00+00:00")
    assert remove_old(runs, 0, "2026-11-05").kept == {"2026-11-03": "text/main builds on it"}


def test_a_stage_s_file_is_read_once_however_many_nights_go(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(1, 4):
        train(runs / f"2026-11-0{day}")
    read: list[Path] = []
    of_file = Path.read_text

    def counted(path: Path, *args: str, **kwargs: str) -> str:
        if path.name == RUN_FILE:
            read.append(path)
        return of_file(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", counted)
    assert len(to_remove(runs, 0).removed) == 4
    few = len(read)
    for day in range(10, 20):
        write_night(runs, f"2026-10-{day}", state="failed")
    assert len(to_remove(runs, 0).removed) == 14
    assert len(read) == 2 * few


def test_a_night_that_somebody_works_on_stays(runs: Path) -> None:
    with held(runs / "2026-11-01"):
        found = remove_old(runs, 2, "2026-11-05")
        assert found.kept == {"2026-11-01": "in use"}
    assert remove_old(runs, 2, "2026-11-05").removed == ["2026-11-01"]


def test_a_night_that_was_left_out_takes_no_other_s_place(runs: Path) -> None:
    for day in ("2026-10-31", "2026-11-04"):
        write_night(runs, day, began="", state="skipped")
    found = remove_old(runs, 2, "2026-11-05")
    assert found.removed == ["2026-11-01", "2026-10-31"]


def test_a_removal_that_was_cut_off_is_finished_by_the_next(runs: Path) -> None:
    (runs / ".removing-2026-10-01" / "pretrain").mkdir(parents=True)
    remove_old(runs, 9)
    assert not (runs / ".removing-2026-10-01").exists()
