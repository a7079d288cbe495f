import socket
import sys

import pytest
from watching import PATIENCE

from flows.server.server import api_url, free_port, healthy, is_free, wait_until_healthy
from tasks.process.process import started
from titanflow.common.errors import StageFailed

ANSWERS = """
import http.server, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2]) if self.path == "/api/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""


def test_a_server_is_waited_for_until_it_answers(tmp_path):
    port = free_port()
    assert not healthy(api_url(port))
    with started([sys.executable, "-c", ANSWERS, str(port), "200"], tmp_path / "log") as process:
        wait_until_healthy(process, api_url(port), tmp_path / "log", PATIENCE)
        assert healthy(api_url(port))
        assert not is_free(port)
    assert is_free(port)


def test_a_server_that_ends_is_not_waited_for(tmp_path):
    log = tmp_path / "log"
    refused = pytest.raises(StageFailed, match=r"ended with 1:\n    no database")
    with started([sys.executable, "-c", "import sys; sys.exit('no database')"], log) as process, refused:
        wait_until_healthy(process, api_url(free_port()), log, PATIENCE)


def test_a_server_that_never_answers_is_given_up(tmp_path):
    log = tmp_path / "log"
    port = free_port()
    refused = pytest.raises(StageFailed, match=r"did not answer in 0\.5 s")
    with started([sys.executable, "-c", ANSWERS, str(port), "503"], log) as process, refused:
        wait_until_healthy(process, api_url(port), log, 0.5)


def test_a_port_that_is_listened_on_is_not_free():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not is_free(listener.getsockname()[1])
    assert is_free(free_port())
