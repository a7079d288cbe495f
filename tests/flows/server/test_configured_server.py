import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import prefect
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.local_run import local_api
from flows.server.configured_server import check_server, configured_url
from flows.server.server import free_port
from titanflow.common.errors import ConfigError


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """An API below ``/api``: it answers with its ``status`` and ``version``, and tells its ``health``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_there = self.path.startswith("/api/")
            status = self.server.health if self.path == "/api/health" else self.server.status
            self.send_response(status if is_there else 404)
            body = f'"{self.server.version}"'.encode()
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.health = server.status = 200
        server.version = ""
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def refusal(server: ThreadingHTTPServer) -> str:
    with pytest.raises(ConfigError) as refused:
        check_server(f"http://127.0.0.1:{server.server_port}/api")
    return str(refused.value)


def test_a_server_of_this_version_is_used(server: ThreadingHTTPServer) -> None:
    server.version = prefect.__version__
    check_server(f"http://127.0.0.1:{server.server_port}/api")


def test_without_its_password_it_says_where_to_put_it(server: ThreadingHTTPServer) -> None:
    server.status = 401
    said = refusal(server)
    assert said.startswith(
        f"PREFECT_API_AUTH_STRING: http://127.0.0.1:{server.server_port}/api doesn't let this client in"
    )
    assert "export PREFECT_API_AUTH_STRING=" in said


def test_another_version_is_named(server: ThreadingHTTPServer) -> None:
    server.version = "2.20.1"
    assert "2.20.1" in refusal(server)


def test_a_server_that_fails_is_no_traceback(server: ThreadingHTTPServer) -> None:
    server.status = 404
    assert refusal(server).startswith("PREFECT_API_URL: http://127.0.0.1:")


def test_a_run_is_refused_where_nothing_answers() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/api"
    with temporary_settings({PREFECT_API_URL: nowhere}), pytest.raises(ConfigError, match=nowhere), local_api():
        pass


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://127.0.0.1:{port}/api/", ""),
        ("http://me:secret@127.0.0.1:{port}/api", ""),
        ("http://127.0.0.1:{port}", "nothing answers at http://127.0.0.1:{port}\n    expected: .*:{port}/api\n"),
        (
            "http://me:secret@127.0.0.1:{port}/else/api",
            r"nothing answers at http://\[redacted\]127.0.0.1:{port}/else/api",
        ),
    ],
)
def test_an_address_is_read_as_prefect_reads_it_and_shown_without_a_password(
    server: ThreadingHTTPServer, address: str, says: str
) -> None:
    server.version = prefect.__version__
    port = server.server_port
    refused = pytest.raises(ConfigError, match=says.format(port=port)) if says else contextlib.nullcontext()
    with temporary_settings({PREFECT_API_URL: address.format(port=port)}), refused:
        check_server(configured_url())


def test_a_password_that_is_asked_for_at_once_is_no_silence(server: ThreadingHTTPServer) -> None:
    server.status = server.health = 401
    assert "doesn't let this client in" in refusal(server)


def test_a_proxy_between_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    with pytest.raises(ConfigError) as refused:
        check_server("http://head.example:4200/api")
    said = str(refused.value)
    assert "nothing answers at http://head.example:4200/api through the proxy http://[redacted]127.0.0.1:9; " in said
    assert "NO_PROXY=head.example asks it directly" in said
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ConfigError, match=r"nothing answers at http://127\.0\.0\.1:9/api\n"):
        check_server("http://127.0.0.1:9/api")
