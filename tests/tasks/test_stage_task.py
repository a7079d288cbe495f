import logging
import sys
from unittest.mock import Mock

import pytest

from tasks import stage_task
from tasks.stage_task import run_stage
from tasks.ui import progress
from titanflow.plan.stage_plan import StagePlan
from titanflow.run.contract import StageRun
from titanflow.run.manifest import Manifest
from titanflow.run.results import GateDecision, PrepareResult, PublishResult, write_result

PREPARES = """
import sys
from pathlib import Path
from titanflow.run.results import PrepareResult, write_result
write_result(Path(sys.argv[1]), PrepareResult(seconds=1))
"""


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """A prepare stage's plan, outside of any flow."""
    monkeypatch.setattr(stage_task, "get_run_logger", lambda: logging.getLogger("test"))
    # An artifact that is made outside of a flow has Prefect start a server.
    monkeypatch.setattr(progress, "Artifacts", Mock())
    run = StageRun(stage="prepare", experiment="tiny", run="main", folder=tmp_path / "run/prepare", fingerprint="f")
    return StagePlan("prepare", "RUN", "new", run, [sys.executable, "-c", PREPARES, str(run.folder)])


@pytest.fixture
def manifest(tmp_path):
    return Manifest.open(tmp_path / "run")


def test_a_stage_runs_and_is_recorded(prepare, manifest):
    assert run_stage(prepare, manifest) == PrepareResult(seconds=1)
    assert Manifest.open(manifest.folder).is_done("prepare", "f")
    assert (prepare.run.folder / "run.yaml").exists()


def test_a_cached_stage_gives_the_stored_result_and_starts_nothing(prepare, manifest):
    write_result(prepare.run.folder, PrepareResult(seconds=2))
    prepare.state, prepare.reason, prepare.command = "CACHED", "nothing changed", ["/must/not/run"]
    state = run_stage(prepare, manifest)
    assert (state.name, state.message, state.data) == ("Cached", "nothing changed", PrepareResult(seconds=2))
    assert not (prepare.run.folder / "run.yaml").exists()


def test_a_model_that_is_held_back_ends_its_stage_in_a_state_of_that_name(prepare, manifest):
    gate = GateDecision(passed=False, reason="no better than c0ffee")
    result = PublishResult(target="folder", location="/model", status="held back", gate=gate)
    imports = "from pathlib import Path; from titanflow.run.results import *"
    program = f"{imports}; write_result(Path({str(prepare.run.folder)!r}), "
    prepare.command = [
        sys.executable,
        "-c",
        program + f"PublishResult.model_validate_json({result.model_dump_json()!r}))",
    ]
    state = run_stage(prepare, manifest)
    assert state.is_completed()
    assert (state.name, state.message, state.data) == ("Held back", "no better than c0ffee", result)
    assert Manifest.open(manifest.folder).is_done("prepare", "f")


def test_a_failed_stage_is_not_recorded_as_done(prepare, manifest):
    prepare.command = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(Exception, match="exit status 3"):
        run_stage(prepare, manifest)
    assert not Manifest.open(manifest.folder).is_done("prepare", "f")
    assert Manifest.open(manifest.folder).stages["prepare"].started
