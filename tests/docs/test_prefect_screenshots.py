"""The script of Prefect's pictures: which pages it would open, and what it says without a server."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"
SCRIPT = DOCS / "prefect_screenshots.py"


@pytest.fixture
def server():
    """A server with the deployment, whose runs are ``server.runs``."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/api/deployments/name/pretrain-sft/on-demand"
            self.answer({"id": "d"})

        def do_POST(self):
            assert self.path == "/api/flow_runs/filter"
            self.answer(self.server.runs)

        def answer(self, value):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.runs = []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_form_and_the_newest_run_are_pictured(server, monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    from prefect_screenshots import pages

    url = f"http://127.0.0.1:{server.server_port}"
    form = {"prefect-form": f"{url}/deployments/deployment/d/run"}
    assert pages(url) == form
    server.runs = [{"id": "r"}]
    assert pages(url) == form | {"prefect-run": f"{url}/runs/flow-run/r"}


@pytest.mark.parametrize(("browsers", "message"), [(["chromium"], "titanflow serve"), ([], "install one of chromium")])
def test_what_is_missing_is_named(tmp_path, browsers, message):
    for name in browsers:
        (tmp_path / name).touch(0o755)
    command = [sys.executable, str(SCRIPT), "http://127.0.0.1:9", "--out", str(tmp_path / "images")]
    environment = os.environ | {"PATH": str(tmp_path), "PYTHONPATH": str(DOCS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "images").exists()
