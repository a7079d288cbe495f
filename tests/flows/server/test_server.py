import socket
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from watching import PATIENCE

from flows.server.server import api_url, free_port, healthy, is_free, running_server, wait_until_healthy
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


def test_the_log_that_a_message_names_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fails = [sys.executable, "-c", "import sys; sys.exit('no database')"]
    refused = pytest.raises(StageFailed, match=r"no database\n    its log: ")
    with refused as failed, running_server(fails, api_url(free_port()), {}):
        pass
    log = Path(str(failed.value).rpartition("its log: ")[2])
    assert log.read_text(encoding="utf-8") == "no database\n"
    log.unlink()
    port = free_port()
    with running_server([sys.executable, "-c", ANSWERS, str(port), "200"], api_url(port), {}):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers_is_given_up(tmp_path):
    log = tmp_path / "log"
    port = free_port()
    refused = pytest.raises(StageFailed, match=r"did not answer in 0\.5 s")
    with started([sys.executable, "-c", ANSWERS, str(port), "503"], log) as process, refused:
        wait_until_healthy(process, api_url(port), log, 0.5)


@pytest.mark.parametrize("url", ["here", "http://[::1/api", "http://127.0.0.1:99999/api", "http://a b/api"])
def test_at_what_is_no_address_nothing_answers(url):
    assert not healthy(url)


def test_what_does_not_speak_http_is_no_server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].sendall(b"SSH-2.0-OpenSSH\r\n"))
        thread.start()
        assert not healthy(api_url(listener.getsockname()[1]), timeout=PATIENCE)
        thread.join()


def test_a_port_that_is_listened_on_is_not_free():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not is_free(listener.getsockname()[1])
    assert is_free(free_port())
