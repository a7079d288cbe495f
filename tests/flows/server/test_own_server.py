import inspect
import os
import signal
import sys

from watching import PATIENCE

from flows.local_run import SERVER_ENV
from flows.server.server import api_url, free_port, wait_until_healthy
from tasks.process.process import Process


def test_it_answers_and_a_signal_wakes_and_ends_it(tmp_path, prefect_home):
    port, log = free_port(), tmp_path / "log"
    env = {"PREFECT_HOME": str(prefect_home), **SERVER_ENV}
    with log.open("wb") as output:
        process = Process([sys.executable, "-m", "flows.server.own_server", str(port)], output, env)
    try:
        wait_until_healthy(process, api_url(port), log, PATIENCE)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGTERM
    finally:
        process.kill()
    assert "Traceback" not in log.read_text()


def test_prefect_has_no_setting_that_would_do_without_its_background_worker():
    # Prefect's server takes seconds to import.
    from docket import Worker
    from prefect.server.api import server
    from prefect.settings.models.server.docket import ServerDocketSettings

    # Where this fails, flows/server/own_server.py may have become needless.
    assert set(ServerDocketSettings.model_fields) == {"name", "url"}
    assert inspect.signature(Worker).parameters["minimum_check_interval"].default.total_seconds() < 1
    for name in ("Docket", "background_worker"):
        assert f"{name}(" in inspect.getsource(server.create_app)
