import builtins
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import wandb

from titan.tracking import wandb_logger
from titan.tracking.model_record import record_model
from titan.tracking.run_record import run_config
from titan.tracking.wandb_logger import WandbLogger
from titan.tracking.wandb_run import link_artifacts, open_run, record_in_wandb
from titanflow.common.errors import StageFailed
from titanflow.runs.contract import StageRun
from titanflow.runs.results import ArtifactRecord, TrackerRecord
from titanflow.runs.tracker_record import record_file


@pytest.fixture
def run(tmp_path):
    return StageRun(stage="sft", experiment="stdlib", run="monday", folder=tmp_path)


class Online:
    """W&B's run where it meets the network: what was asked of it."""

    def __init__(self, starting_step=0):
        self.starting_step = starting_step
        self.logged = []
        self.artifacts = []
        self.ended = []

    def log(self, values, step):
        self.logged.append(step)

    def use_artifact(self, artifact, aliases):
        self.artifacts.append(("use", artifact.name, artifact.type, artifact.metadata, aliases))

    def log_artifact(self, artifact, aliases):
        self.artifacts.append(("log", artifact.name, artifact.type, artifact.metadata, aliases))

    def finish(self, exit_code):
        self.ended.append(exit_code)


def test_what_a_server_has_is_neither_repeated_nor_left_with_a_gap(run, monkeypatch):
    """The checkpoint holds step 5; the server has 1 to 3 (killed with 4 in memory), or 1 to 7 (killed after)."""
    monkeypatch.setenv("WANDB_MODE", "online")
    for first_free, expected in ((4, [4, 5, 6, 7, 8]), (8, [8])):
        server = Online(starting_step=first_free)
        monkeypatch.setattr(wandb_logger, "open_run", lambda run, at=server: (at, TrackerRecord(mode="online")))
        logger = WandbLogger(run)
        logger.begin({step: {"train/loss": 1.0} for step in range(1, 6)})
        for step in (6, 7, 8):
            logger.log({"train/loss": 1.0}, step)
        logger.close()
        assert server.logged == expected
        assert server.ended == [0]


def test_a_run_that_ends_by_an_exception_has_failed(run, monkeypatch):
    server = Online()
    monkeypatch.setattr(wandb_logger, "open_run", lambda run: (server, TrackerRecord(mode="online")))
    logger = WandbLogger(run)
    logger.begin({})

    def train():
        try:
            raise OverflowError
        finally:
            logger.close()

    with pytest.raises(OverflowError):
        train()
    assert server.ended == [1]


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_online_the_data_and_the_base_are_used_and_the_model_is_logged_by_reference(tmp_path, mode):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    record = TrackerRecord(
        mode=mode,
        used=[ArtifactRecord(name="chats", type="dataset", digest="1f", aliases=["1f"])],
        logged=[ArtifactRecord(name="stdlib-sft", type="model", digest="2e", reference=tmp_path.as_uri())],
    )
    server = Online()
    link_artifacts(server, record)
    used = ("use", "chats", "dataset", {"digest": "1f"}, ["1f"])
    logged = ("log", "stdlib-sft", "model", {"digest": "2e"}, [])
    assert server.artifacts == ([used, logged] if mode == "online" else [logged])


def test_the_config_is_the_resolved_one_without_tokens(run, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    token = "hf_" + "a" * 34
    run.config = {"training": {"steps": 3}, "model": {"path": f"x {token}"}, "list": ["f" * 40]}
    config = run_config(run, TrackerRecord())
    assert config["config"] == {"training": {"steps": 3}, "model": {"path": "x [redacted]"}, "list": ["[redacted]"]}
    assert config["run"] == "monday"


def test_a_wandb_that_is_missing_is_said_with_what_to_do(run, monkeypatch):
    imports = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "wandb":
            raise ModuleNotFoundError("No module named 'wandb'")
        return imports(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(StageFailed, match=r"pip install wandb.*enable_wandb: false"):
        open_run(run)


def test_without_a_run_the_record_still_has_the_artifacts(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    result = SimpleNamespace(export=None, checkpoint=run.folder / "checkpoint" / "step-3", step=3)
    record = record_model(run, result)["wandb"]
    assert (record.id, record.mode) == ("", "disabled")
    assert [one.name for one in record.logged] == ["stdlib-sft"]


def test_a_run_that_never_began_is_not_begun_for_the_model(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    record_file(run.folder, "wandb").write_text(TrackerRecord(id="abc", mode="online").model_dump_json())
    monkeypatch.setattr("titan.tracking.wandb_run.open_run", lambda run: pytest.fail("it was begun"))
    assert record_in_wandb(run, []).id == ""


def test_a_server_that_breaks_at_the_end_costs_no_result(run, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    record_file(run.folder, "wandb").write_text(
        TrackerRecord(id="abc", mode="online", folders=["run-1-abc"]).model_dump_json()
    )
    monkeypatch.setattr(wandb, "run", SimpleNamespace())
    assert record_in_wandb(run, []).id == "abc"
    assert "W&B doesn't have the model" in capsys.readouterr().out


OFFLINE = """
import sys
from pathlib import Path
import wandb
from titan.tracking.wandb_run import end_run, open_run
from titanflow.runs.contract import StageRun

opened, record = open_run(StageRun(stage="sft", experiment="x", run="y", folder=Path(sys.argv[1])))
opened.log({"train/loss": 1.0}, step=1)
end_run(opened)
print(record.folders[0])
"""


def test_offline_no_connection_is_tried(tmp_path):
    """Neither to W&B's server nor, through a proxy, to any other; its telemetry would be one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        own = {"WANDB_BASE_URL": address, "HTTP_PROXY": address, "HTTPS_PROXY": address, "WANDB_API_KEY": "0" * 40}
        ended = subprocess.run(
            [sys.executable, "-c", OFFLINE, str(tmp_path)], env={**os.environ, **own}, text=True, capture_output=True
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.startswith("offline-run-")
        with pytest.raises(BlockingIOError):
            server.accept()
