import logging
import sys

import pytest

from tasks import hub_token, stage_task
from tasks.hub_token import check_token, token_environment
from tasks.stage_task import run_stage
from titanflow.common.errors import ConfigError, HubError
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import Manifest

SECRET = "opaque-token-value"
SHOWS = """
import os, sys
from pathlib import Path
from titanflow.runs.results import PublishResult, write_result
write_result(Path(sys.argv[1]), PublishResult(target="hub", location=str(len(os.environ["HF_TOKEN"]))))
"""


class Block:
    """A Secret block, as far as it is asked."""

    @staticmethod
    def load(name):
        if name != "hub":
            raise ValueError(f"Unable to find block document named {name}")
        return Block()

    def get(self):
        return f"{SECRET}\n"


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_token, "Secret", Block)
    config = {"target": "hub", "repo_id": "a/b", "token_block": "hub"}
    origins = {"token_block": "publish.yaml:7"}
    run = StageRun(
        stage="publish", experiment="tiny", run="main", folder=tmp_path / "main/publish", config=config, origins=origins
    )
    return StagePlan("publish", "RUN", "new", run, [sys.executable, "-c", SHOWS, str(run.folder)])


def test_the_token_goes_into_the_environment(plan):
    assert token_environment(plan) == {"HF_TOKEN": SECRET}
    check_token(plan)


def test_no_block_is_named(plan):
    plan.run.config["token_block"] = None
    assert token_environment(plan) == {}


def test_a_block_that_is_not_there_or_empty(plan, monkeypatch):
    monkeypatch.setattr(Block, "get", lambda self: " ")
    with pytest.raises(ConfigError, match="the Secret block 'hub' is empty"):
        check_token(plan)
    plan.run.config["token_block"] = "hubb"
    with pytest.raises(ConfigError, match=r"publish.yaml:7: publish.token_block: there is no Secret block 'hubb'"):
        check_token(plan)


def test_a_push_without_any_token_is_refused_before_anything_runs(plan, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    plan.run.config["token_block"] = None
    with pytest.raises(HubError, match="set HF_TOKEN"):
        check_token(plan)
    for harmless in ({"target": "folder"}, {}):
        plan.run.config = harmless
        check_token(plan)


class NoProgress:
    """Reports to no Prefect server."""

    def __init__(self, run, logger):
        pass

    def __call__(self, records):
        pass

    def waits(self, line):
        pass

    def finish(self, result):
        pass


def test_no_file_of_the_stage_holds_it(plan, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(stage_task, "Progress", NoProgress)
    monkeypatch.setattr(stage_task, "get_run_logger", lambda: logging.getLogger("test"))
    manifest = Manifest.open(plan.run.folder.parent)
    result = run_stage(plan, manifest, secrets=lambda: token_environment(plan))
    assert result.location == str(len(SECRET))
    files = [path for path in plan.run.folder.parent.rglob("*") if path.is_file()]
    assert {"run.yaml", "publish.log", "manifest.json"} <= {path.name for path in files}
    assert not [path for path in files if SECRET in path.read_text()]
    assert SECRET not in caplog.text
    assert SECRET not in repr(plan)
