"""Trackio on a server of its own, as several people share it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from recorded import store_environment, stored_rows

from titan.tracking.stores.trackio_store import TrackioStore
from titanflow.common.errors import StageFailed
from titanflow.runs.contract import StageRun
from titanflow.runs.tracker_record import read_tracker_record

pytestmark = pytest.mark.slow
SERVER = """
import json, socket, uvicorn
from trackio.server import build_starlette_app_only

app, token = build_starlette_app_only()
listening = socket.create_server(("127.0.0.1", 0))
print(json.dumps([f"http://127.0.0.1:{listening.getsockname()[1]}", token]), flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[listening])
"""
LOGGED = """
import json, sys
from pathlib import Path
from titan.tracking.stores.store_logger import StoreLogger
from titan.tracking.stores.store_record import score_in_store
from titanflow.runs.contract import StageRun

for path, rows in json.loads(sys.argv[1]):
    run = StageRun.read(Path(path))
    if rows is None:
        score_in_store(run, "trackio", {"eval/sft/kind/acc": 0.5}, [])
        continue
    logger = StoreLogger(run, "trackio")
    logger.begin({})
    for step in rows:
        logger.log({"tokens": step * 8, "train/loss": 1 / step}, step)
    logger.complete()
"""


def stage_of(workspace: Path) -> StageRun:
    made = StageRun(stage="sft", experiment="test", run="monday", folder=workspace / "test" / "monday" / "sft")
    made.write()
    return made


def log(*steps: tuple[StageRun, list[int] | None], **environment: str) -> subprocess.CompletedProcess[str]:
    told = json.dumps([(str(run.folder / "run.yaml"), rows) for run, rows in steps])
    command = [sys.executable, "-c", LOGGED, told]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[tuple[StageRun, dict[str, str]]]:
    """A stage in whose workspace the server keeps its rows, and the variables that name the server."""
    run = stage_of(tmp_path / "board")
    environment = {**os.environ, **store_environment(tmp_path / "board")}
    with subprocess.Popen([sys.executable, "-c", SERVER], env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url, token = json.loads(server.stdout.readline())
        yield run, {"TRACKIO_SERVER_URL": url, "TRACKIO_WRITE_TOKEN": token}
        server.terminate()


def test_a_resumed_stage_goes_on_in_its_own_run_of_several_with_its_name(
    board: tuple[StageRun, dict[str, str]], tmp_path: Path
) -> None:
    """Two people's stages of the same names: the first, resumed, went on in the second's run."""
    shown, server = board
    mine, theirs = stage_of(tmp_path / "mine"), stage_of(tmp_path / "theirs")
    done = log((mine, [1, 2]), (theirs, [1, 2, 3]), (mine, [3, 4, 5]), **server)
    assert done.returncode == 0, done.stderr
    read = [read_tracker_record(run.folder, "trackio") for run in (mine, theirs)]
    records = [record for record in read if record]
    assert [record.url for record in records] == [server["TRACKIO_SERVER_URL"]] * 2
    stored = stored_rows(shown, "trackio")
    assert [sorted(stored[record.id]) for record in records] == [[1, 2, 3, 4, 5], [1, 2, 3]]
    assert all(sorted(name for name, _ in row) == ["tokens", "train/loss"] for row in stored[records[0].id].values())


def test_scores_that_a_dead_server_never_got_are_no_success(tmp_path: Path) -> None:
    """Trackio itself only warns, and the evaluation's record had an id."""
    run = stage_of(tmp_path / "runs")
    done = log((run, None), TRACKIO_SERVER_URL="http://127.0.0.1:9", TRACKIO_WRITE_TOKEN="s3cret")
    assert done.returncode == 1
    assert "Could not connect to Space 'http://127.0.0.1:9'" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


def test_rows_that_the_server_did_not_take_are_counted() -> None:
    """A wrong token or a server that answers 500: Trackio puts the rows aside and calls the run finished."""

    class Client:
        def predict(self, **asked: str) -> list[dict[str, int]]:
            assert asked["run_id"] == "1f"
            return [{"step": 1, "train/loss": 2}]

    opened = SimpleNamespace(project="test", name="monday-sft", id="1f", log=lambda *_, **__: None, finish=lambda: None)
    store = TrackioStore(opened, Client())
    store.log(1, {"train/loss": 2})
    store.end(failed=False)
    store.log(2, {"train/loss": 1})
    with pytest.raises(StageFailed, match=r"^the server didn't take 1 of 2 rows$"):
        store.end(failed=False)
