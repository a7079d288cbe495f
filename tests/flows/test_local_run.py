import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from watching import PATIENCE, alive, wait_for

from flows import local_run
from flows.local_run import local_api

# What `titanflow run` does with a plan, in a process of its own.
PROGRAM = """
import sys
sys.path.insert(0, {here!r})
import small_plan
from flows import pretrain_sft
from pathlib import Path
plan = small_plan.small_plan(Path({folder!r}), pretrain=small_plan.{program})
pretrain_sft.make_plan = lambda *arguments: plan
from flows import local_run
from flows.local_run import run_flow
# What ends a run that hangs after an interrupt would also end one that a busy machine makes slow.
local_run.INTERRUPTED_SECONDS = local_run.FLUSH_SECONDS = {patience}
from titanflow.common.errors import TitanflowError
try:
    print(run_flow("tiny").published)
except TitanflowError as error:
    sys.exit(str(error))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def run(tmp_path, prefect_home):
    """Starts a run of one stage; its output is in ``tmp_path / "output"``."""

    started = []

    def start(program: str) -> subprocess.Popen:
        script, here = tmp_path / "program.py", str(Path(__file__).parent)
        script.write_text(PROGRAM.format(here=here, folder=str(tmp_path), program=program, patience=PATIENCE))
        env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        with (tmp_path / "output").open("w") as output:
            process = subprocess.Popen(
                [sys.executable, str(script)],
                env={**env, "PREFECT_HOME": str(prefect_home)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def newest_state(prefect_home):
    with sqlite3.connect(prefect_home / "prefect.db") as database:
        return database.execute(
            "select state_name from flow_run where name = 'tiny/main' order by created desc"
        ).fetchone()[0]


def test_a_run_without_a_server_has_nothing_to_alarm_about(run, tmp_path, prefect_home):
    process = run("TRAINS")
    assert process.wait(PATIENCE) == 0
    output = (tmp_path / "output").read_text()
    assert "pretrain finished: step 4, loss 4" in output
    for alarm in ("ERROR", "WARNING", "Traceback", "Error", "http://"):
        assert alarm not in output
    assert newest_state(prefect_home) == "Completed"
    with sqlite3.connect(prefect_home / "prefect.db") as database:
        assert database.execute("select state_name from task_run order by created desc limit 1").fetchone() == (
            "Completed",
        )


def test_a_failed_stage_is_told_once_and_without_a_traceback(run, tmp_path, prefect_home):
    process = run("FAILS")
    assert process.wait(PATIENCE) == 1
    output = (tmp_path / "output").read_text()
    assert output.count("loss is nan") == 1
    assert "Traceback" not in output
    assert newest_state(prefect_home) == "Failed"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_saves_records_its_end_and_leaves_no_process(run, tmp_path, prefect_home, number, status):
    process = run("WAITS")
    pid_file = tmp_path / "run/pretrain/pid"
    wait_for(lambda: process.poll() is not None or (pid_file.exists() and pid_file.read_text()), "the stage")
    family = psutil.Process(process.pid).children(recursive=True)
    assert int(pid_file.read_text()) in [child.pid for child in family]
    # As a terminal does it: to all of its foreground processes.
    os.killpg(process.pid, number)
    assert process.wait(PATIENCE) == status
    assert (tmp_path / "run/pretrain/saved").exists()
    assert [child for child in family if alive(child.pid)] == []
    assert newest_state(prefect_home) == "Crashed"
    assert "Connection refused" not in (tmp_path / "output").read_text()


def test_the_server_that_is_named_is_tried_and_used(monkeypatch):
    tried = []
    monkeypatch.setattr(local_run, "check_server", tried.append)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), local_api() as url:
        assert tried == [url] == ["http://127.0.0.1:9/api"]
