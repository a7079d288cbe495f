"""Trackio and MLflow on their local stores, read back by the clients' own API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recorded import expected_rows, store_environment, stored_rows

from titan.tracking.loggers import ForgivingLoggers
from titan.tracking.stores.mlflow_store import mlflow_name
from titan.tracking.stores.store_logger import StoreLogger
from titan.tracking.stores.store_record import record_in_store
from titanflow.runs.contract import StageRun
from titanflow.runs.results import read_result
from titanflow.runs.tracker_record import asked_trackers, read_tracker_record, record_file, tracker_mode

TRACKERS = ("trackio", "mlflow")
KILLED = """
import os, signal, sys, time
from concurrent.futures import wait
from pathlib import Path
from titan.tracking.stores.store_logger import StoreLogger
from titanflow.runs.contract import StageRun

run = StageRun.read(Path(sys.argv[1]))
logger = StoreLogger(run, sys.argv[2])
logger.begin({})
for step in range(1, 7):
    logger.log({"tokens": step * 8, "train/loss": 1 / step, "train/tokens_per_second": 100}, step)
wait(list(logger._pending))
while 3 not in logger._store.known():
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
LOGGED = """
import json, sys
from pathlib import Path
from titan.tracking.stores.store_logger import StoreLogger
from titanflow.runs.contract import StageRun

run = StageRun.read(Path(sys.argv[1]))
logger = StoreLogger(run, sys.argv[2])
before, after = ({int(step): row for step, row in rows.items()} for rows in json.loads(sys.argv[3]))
logger.begin(before)
for step, row in after.items():
    logger.log(row, step)
logger.complete()
"""
SCORED = """
import sys
from pathlib import Path
from titan.tracking.stores.store_record import score_in_store
from titanflow.runs.contract import StageRun
from titanflow.runs.results import ArtifactRecord

run = StageRun.read(Path(sys.argv[1]))
used = [ArtifactRecord(name="test-sft", type="model", digest="1f" * 32, reference="file:///tmp")]
for score in (0.5, 0.75):
    record = score_in_store(run, sys.argv[2], {"eval/sft/kind/acc": score, "eval/sft/kind/em,strict": 1.0}, used)
print(record.model_dump_json())
"""


@pytest.fixture
def run(tmp_path: Path) -> StageRun:
    made = StageRun(stage="sft", experiment="test", run="monday", folder=tmp_path / "runs" / "test" / "monday" / "sft")
    made.config = {"training": {"steps": 8}, "hub": {"path": "hf_" + "a" * 34}}
    made.write()
    return made


def python(code: str, run: StageRun, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, str(run.folder / "run.yaml"), *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def rows(steps: range, speed: int) -> dict[int, dict[str, float]]:
    return {step: {"tokens": step * 8, "train/loss": 1 / step, "train/tokens_per_second": speed} for step in steps}


@pytest.mark.parametrize("tracker", TRACKERS)
def test_after_a_kill_the_same_run_has_each_step_once(run: StageRun, tracker: str) -> None:
    """Killed after step 6, with the last rows in memory; the checkpoint holds step 4."""
    assert python(KILLED, run, tracker).returncode == -signal.SIGKILL
    begun = read_tracker_record(run.folder, tracker)
    resumed = python(LOGGED, run, tracker, json.dumps([rows(range(1, 5), 100), rows(range(5, 9), 90)]))
    assert resumed.returncode == 0, resumed.stderr
    record = read_tracker_record(run.folder, tracker)
    assert begun is not None
    assert record is not None
    assert (record.id, record.url) == (begun.id, begun.url)
    (stored,) = stored_rows(run, tracker).values()
    assert sorted(stored) == list(range(1, 9))
    for step, values in stored.items():
        assert {name: value for name, value in values if name != "train/tokens_per_second"} == {
            "tokens": step * 8,
            "train/loss": 1 / step,
        }
        speeds = [value for name, value in values if name == "train/tokens_per_second"]
        # Rows that the store had stay as first logged.
        assert speeds in ([[100]] if step <= 4 else [[100], [90]] if step <= 6 else [[90]])


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_validation_is_in_the_row_of_its_step_and_the_axis_there_once(run: StageRun, tracker: str) -> None:
    validated = {1: {"tokens": 8, "train/loss": 2.0}}
    assert python(LOGGED, run, tracker, json.dumps([validated, {1: {"tokens": 8, "val/loss": 1.5}}])).returncode == 0
    (stored,) = stored_rows(run, tracker).values()
    assert sorted(stored[1]) == [("tokens", 8), ("train/loss", 2.0), ("val/loss", 1.5)]


def test_on_a_networks_file_system_trackio_says_nothing_twice(run: StageRun) -> None:
    """There it writes fragments, which only its dashboard reads: a resumed stage began a second run, with all rows."""
    fragments = {"TRACKIO_STORAGE_MODE": "jsonl"}
    whole, first = rows(range(1, 4), 1), rows(range(1, 2), 1)
    for before, after in (({}, first), (first, whole)):
        assert python(LOGGED, run, "trackio", json.dumps([before, after]), **fragments).returncode == 0
    show = "from trackio.fragments import import_inbox_dir\nimport_inbox_dir()"
    assert python(show, run, **store_environment(run.folder.parents[2])).returncode == 0
    (stored,) = stored_rows(run, "trackio").values()
    assert {step: dict(values) for step, values in stored.items()} == whole
    assert all(len(values) == 3 for values in stored.values())


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_stage_that_begins_anew_gets_a_new_run(run: StageRun, tracker: str) -> None:
    for _ in range(2):
        assert python(LOGGED, run, tracker, json.dumps([{}, rows(range(1, 3), 1)])).returncode == 0
        record_file(run.folder, tracker).unlink()
    stored = stored_rows(run, tracker)
    assert [sorted(found) for found in stored.values()] == [[1, 2], [1, 2]]


@pytest.mark.parametrize("tracker", TRACKERS)
def test_scores_are_a_run_of_their_own_each_time(run: StageRun, tracker: str) -> None:
    scored = python(SCORED, run, tracker)
    assert scored.returncode == 0, scored.stderr
    (record,) = [json.loads(line) for line in scored.stdout.splitlines() if line.startswith("{")]
    stored = stored_rows(run, tracker)
    assert len(stored) == 2
    comma = "eval/sft/kind/em_strict" if tracker == "mlflow" else "eval/sft/kind/em,strict"
    assert dict(stored[record["id"]][0]) == {"eval/sft/kind/acc": 0.75, comma: 1.0}
    assert [one["name"] for one in record["used"]] == ["test-sft"]


def test_mlflow_has_the_config_the_data_and_the_stage_without_a_token(run: StageRun, monkeypatch: Any) -> None:
    assert python(SCORED, run, "mlflow").returncode == 0
    from mlflow import MlflowClient

    record = read_tracker_record(run.folder, "mlflow")
    assert record is not None
    assert record.url == f"sqlite:///{run.folder.parents[2]}/.trackers/mlflow.db"
    found = MlflowClient(tracking_uri=record.url).get_run(record.id)
    assert found.info.run_name == "monday-sft"
    assert found.info.status == "FINISHED"
    assert found.data.tags["titanflow.group"] == "test/monday"
    assert found.data.params["config.training.steps"] == "8"
    assert found.data.params["config.hub.path"] == "[redacted]"
    (used,) = found.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("test-sft", "1f" * 18)


def test_nothing_is_asked_of_a_network_by_local_stores(run: StageRun) -> None:
    """A token makes trackio ask the Hub who it belongs to; here every connection ends the process."""
    guard = "import os, socket\nsocket.socket.connect = socket.getaddrinfo = lambda *_: os._exit(9)\n"
    for tracker in TRACKERS:
        rest = json.dumps([{}, rows(range(1, 3), 1)])
        done = python(guard + LOGGED, run, tracker, rest, HF_TOKEN="hf_" + "b" * 34, HF_HUB_OFFLINE="0")
        assert done.returncode == 0, (tracker, done.stdout + done.stderr)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_dead_server_costs_its_rows_and_is_named_once(
    run: StageRun, tracker: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr("titan.tracking.stores.store_logger.open_store", broken)
    loggers = ForgivingLoggers([StoreLogger(run, tracker)])
    loggers.begin({1: {"train/loss": 1.0}})
    for step in range(2, 50):
        loggers.log({"train/loss": 1.0}, step)
    loggers.complete()
    (said,) = [one.message for one in caplog.records if "left out" in one.message]
    assert said.endswith("failed and is left out from here on: refused")
    assert said.startswith({"trackio": "Trackio", "mlflow": "MLflow"}[tracker])


def test_a_database_that_was_killed_while_it_was_made_is_made_again(run: StageRun) -> None:
    """The next start found half of MLflow's tables, and failed at the first that it made again."""
    killed = (
        "import os, signal\nfrom mlflow.store.db import utils\nmade = utils.InitialBase.metadata.create_all\n"
        "def half(*a, **k):\n    made(*a, **k)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "utils.InitialBase.metadata.create_all = half\n"
    )
    rest = json.dumps([{}, rows(range(1, 3), 1)])
    assert python(killed + LOGGED, run, "mlflow", rest).returncode == -signal.SIGKILL
    assert python(LOGGED, run, "mlflow", rest).returncode == 0
    (stored,) = stored_rows(run, "mlflow").values()
    assert sorted(stored) == [1, 2]


def test_mlflow_gives_a_server_that_isn_t_there_up_soon(run: StageRun) -> None:
    address = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = python(LOGGED, run, "mlflow", json.dumps([{}, rows(range(1, 3), 1)]), **address)
    assert done.returncode == 1
    assert "127.0.0.1" in done.stderr.splitlines()[-1]


def test_a_run_that_never_began_is_not_begun_for_the_model(run: StageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titan.tracking.stores.store_record.open_store", lambda *_: pytest.fail("it was begun"))
    assert record_in_store(run, "mlflow", []).id == ""


def test_only_what_is_asked_for_is_imported(run: StageRun) -> None:
    code = (
        "import sys\nfrom torchtitan.config import JobConfig\nfrom titan.tracking.loggers import stage_loggers\n"
        "import titan.evaluate.log_scores\n"
        "config = JobConfig()\nassert stage_loggers(None, config, True).inner == []\n"
        "print([name for name in ('trackio', 'mlflow', 'wandb') if name in sys.modules])"
    )
    done = python(code, run)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_who_is_asked_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_trackers({"metrics": {"enable_wandb": True, "enable_mlflow": True}}) == ["wandb", "mlflow"]
    assert asked_trackers({"wandb": False, "trackio": True}) == ["trackio"]
    assert (tracker_mode("trackio"), tracker_mode("mlflow")) == ("offline", "offline")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/board")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert (tracker_mode("trackio"), tracker_mode("mlflow")) == ("online", "online")
    assert mlflow_name("eval/sft/gsm8k/exact_match,strict-match") == "eval/sft/gsm8k/exact_match_strict-match"


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_training_that_was_killed_has_the_files_values(killed: StageRun, tracker: str) -> None:
    """A real training, killed by SIGKILL past a checkpoint and resumed; speeds are those of whoever came first."""
    record = read_result(killed.folder).trackers[tracker]  # type: ignore[union-attr]
    stored = stored_rows(killed, tracker)
    assert list(stored) == [record.id]
    assert [one.name for one in record.logged] == ["test-pretrain"]

    def equal_in_both(values: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in values.items() if name.startswith(("train/l", "val/", "tokens"))}

    found = stored[record.id]
    assert all(len(values) == len(dict(values)) for values in found.values()), "a name stands there twice"
    steps = {step: equal_in_both(dict(values)) for step, values in found.items()}
    assert steps == {step: equal_in_both(row) for step, row in expected_rows(killed).items()}
