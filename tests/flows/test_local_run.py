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

# `titanflow run` with a plan of one small stage; the database of its server stays.
PROGRAM = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
import small_plan
import titanflow.planning.plan
folder = Path({folder!r})
plan = small_plan.small_plan(folder, pretrain=small_plan.{program})
titanflow.planning.plan.make_plan = lambda *arguments: plan
titanflow.planning.plan.run_folder = lambda *arguments: folder / "run"
from titanflow.cli import run

def with_database():
    from flows import local_run
    # What ends a run that hangs after an interrupt would also end one that a busy machine makes slow.
    local_run.INTERRUPTED_SECONDS = local_run.FLUSH_SECONDS = {patience}
    own_server = local_run.own_server
    local_run.own_server = lambda database, meanwhile: own_server(folder / "prefect.db", meanwhile)

run.show_warnings = lambda config: with_database()
sys.argv[1:] = ["run", "tiny"]
from titanflow.cli.main import main
main()
"""
OF_A_TEAM = {"PREFECT_SERVER_API_AUTH_STRING": "team:secret", "PREFECT_SERVER_API_BASE_PATH": "/team/api"}
"""What stands in a shell from which a team's server is started."""
DEAD_PROXY = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
NEWER = "of_a_newer_one"


@pytest.fixture
def run(tmp_path, prefect_home):
    """Starts a run of one stage; its output is in ``tmp_path / "output"``."""

    started = []

    def start(program: str, **environ: str) -> subprocess.Popen:
        script, here = tmp_path / "program.py", str(Path(__file__).parent)
        script.write_text(PROGRAM.format(here=here, folder=str(tmp_path), program=program, patience=PATIENCE))
        (tmp_path / "temporary").mkdir()
        env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        own = {"PREFECT_HOME": str(prefect_home), "TMPDIR": str(tmp_path / "temporary"), **environ}
        with (tmp_path / "output").open("w") as output:
            process = subprocess.Popen(
                [sys.executable, str(script)],
                env={name: value for name, value in {**env, **own}.items() if value},
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


def newest_state(folder):
    with sqlite3.connect(folder / "prefect.db") as database:
        return database.execute(
            "select state_name from flow_run where name = 'tiny/main' order by created desc"
        ).fetchone()[0]


def test_a_run_needs_no_server_no_home_no_utf8_and_no_proxy(run, tmp_path):
    (tmp_path / "file").touch()
    latin1 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
    process = run("TRAINS", HOME=str(tmp_path / "file" / "home"), PREFECT_HOME="", **latin1, **DEAD_PROXY)
    assert process.wait(PATIENCE) == 0
    warning, *lines = (tmp_path / "output").read_text(encoding="latin-1").splitlines()
    place = tmp_path / "temporary" / f"titanflow-{os.getuid()}"
    assert warning.startswith("warning: ~/.cache, ")
    assert warning.endswith(f"are in {place} instead")
    output = "\n".join(lines)
    assert "pretrain finished: step 4, loss 4" in output
    for alarm in ("ERROR", "WARNING", "warning", "Traceback", "Error", "Warning", "http://"):
        assert alarm not in output
    assert newest_state(tmp_path) == "Completed"
    with sqlite3.connect(tmp_path / "prefect.db") as database:
        assert database.execute("select state_name from task_run order by created desc limit 1").fetchone() == (
            "Completed",
        )
    assert list((tmp_path / "temporary").iterdir()) == [place]


def test_a_failed_stage_is_told_once_and_without_a_traceback(run, tmp_path):
    # The user's own Prefect is another one, whose database a run neither reads nor changes.
    home = tmp_path / "newer"
    home.mkdir()
    with sqlite3.connect(home / "prefect.db") as database:
        database.execute("create table alembic_version (version_num varchar(32) not null)")
        database.execute("insert into alembic_version values (?)", [NEWER])
    before = (home / "prefect.db").read_bytes()
    process = run("FAILS", PREFECT_HOME=str(home), **OF_A_TEAM)
    assert process.wait(PATIENCE) == 1
    output = (tmp_path / "output").read_text()
    assert output.count("loss is nan") == 1
    for alarm in ("WARNING", "warning", "Traceback"):
        assert alarm not in output
    assert newest_state(tmp_path) == "Failed"
    assert (home / "prefect.db").read_bytes() == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_saves_records_its_end_and_leaves_no_process(run, tmp_path, number, status):
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
    assert newest_state(tmp_path) == "Crashed"
    assert "Connection refused" not in (tmp_path / "output").read_text()


def test_the_server_that_is_named_is_tried_and_used(monkeypatch):
    tried = []
    monkeypatch.setattr(local_run, "check_server", tried.append)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), local_api() as url:
        assert tried == [url] == ["http://127.0.0.1:9/api"]
