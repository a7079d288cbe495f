"""Whether evaluations are tried before a training: only those that are still to come, and once."""

from pathlib import Path
from typing import Any

import pytest

from tasks import rehearsal
from tasks.rehearsal import rehearse
from titanflow.planning.evaluation.rehearsal import Rehearsal
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.runs.contract import StageRun
from titanflow.runs.results import PrepareResult, write_result


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders in which an evaluation was tried."""
    folders: list[Path] = []

    def launch(stage: str, folder: Path, command: list[str], env: dict[str, str]) -> PrepareResult:
        asked = Rehearsal.model_validate_json(Path(command[-1]).read_text())
        assert [run.stage for run in asked.trained] == ["pretrain"]
        assert env == {"HOME": "/", "TITANFLOW_STAGE_FOLDER": str(folder)}
        folders.append(folder)
        write_result(folder, PrepareResult())
        return PrepareResult()

    monkeypatch.setattr(rehearsal, "launch", launch)
    return folders


def plan_of(folder: Path, state: Any = "RUN", fingerprint: str = "f", **launcher: str) -> Plan:
    common = {"experiment": "tiny", "run": "main"}
    pretrain = StageRun(stage="pretrain", folder=folder / "pretrain", **common)
    run = StageRun(stage="evaluate", folder=folder / "evaluate", fingerprint=fingerprint, **common)
    run.config = {"launcher": launcher}
    stages = [StagePlan("pretrain", "RUN", "new", pretrain), StagePlan("evaluate", state, "new", run)]
    stages[-1].env = {"HOME": "/"}
    return Plan("tiny", "main", folder, stages, None)  # type: ignore[arg-type]


def test_an_evaluation_is_tried_once_and_again_when_it_is_another(tmp_path: Path, launched: list[Path]) -> None:
    for fingerprint, times in (("f", 1), ("f", 1), ("g", 2)):
        rehearse(plan_of(tmp_path, fingerprint=fingerprint), print)
        assert launched == [tmp_path / "rehearsal"] * times


def test_one_that_is_done_or_elsewhere_or_not_asked_for_is_not_tried(tmp_path: Path, launched: list[Path]) -> None:
    rehearse(plan_of(tmp_path, state="CACHED"), print)
    rehearse(plan_of(tmp_path, pool="gpu"), print)
    without = plan_of(tmp_path)
    without.stages.pop()
    rehearse(without, print)
    assert launched == []


def test_what_failed_is_tried_again_and_its_log_kept(tmp_path: Path, launched: list[Path]) -> None:
    rehearse(plan_of(tmp_path), print)
    (tmp_path / "rehearsal" / "result.json").unlink()
    (tmp_path / "rehearsal" / "rehearsal.log").write_text("why")
    rehearse(plan_of(tmp_path), print)
    assert len(launched) == 2
    assert (tmp_path / "superseded" / "rehearsal-1" / "rehearsal.log").read_text() == "why"
    rehearse(plan_of(tmp_path, fingerprint="g"), print)
    assert len(list((tmp_path / "superseded").iterdir())) == 1


def test_several_evaluations_and_what_is_scored_on_the_way_are_tried_at_once(
    tmp_path: Path, launched: list[Path]
) -> None:
    def plan(*fingerprints: str, state: Any = "RUN") -> Plan:
        made = plan_of(tmp_path, state=state)
        first, second, during = fingerprints
        common = {"experiment": "tiny", "run": "main", "config": {}}
        other = StageRun(stage="b", kind="evaluate", folder=tmp_path / "b", fingerprint=second, **common)
        made.stages.append(StagePlan("b", state, "new", other, env={"HOME": "/"}))
        pretrain, evaluate, _ = made.stages
        evaluate.run.fingerprint, pretrain.env = first, {"HOME": "/"}
        folder = tmp_path / "pretrain" / "during"
        pretrain.during = StageRun(stage="p-during", kind="evaluate", folder=folder, fingerprint=during, **common)
        return made

    told: list[str] = []
    rehearse(plan("f", "f", "f"), told.append)
    assert told == ["trying the tasks of evaluate, b, pretrain.during"]
    # What was tried with others isn't tried again alone; what changed is.
    rehearse(plan("f", "f", "f", state="CACHED"), told.append)
    assert len(launched) == 1
    for changed in (("f", "g", "f"), ("f", "g", "h")):
        rehearse(plan(*changed), told.append)
    assert len(launched) == 3
    rehearse(plan("f", "g", "i", state="CACHED"), told.append)
    assert told[-1] == "trying the tasks of pretrain.during"
