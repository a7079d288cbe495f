"""The paths of a Kubernetes API on which Prefect's worker makes jobs; it keeps what it is asked, and does nothing."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

ACCEPTED = ("/api/v1/namespaces/{}/secrets", "/apis/batch/v1/namespaces/{}/jobs")


class RecordedApi:
    """``made`` has what was made, in order; ``unknown`` the requests that it has no answer to."""

    def __init__(self, namespace: str) -> None:
        self.made: list[dict[str, Any]] = []
        self.unknown: list[str] = []
        self.paths = {path.format(namespace) for path in ACCEPTED}

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.made if one["kind"] == kind]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        if method == "POST" and path in self.paths:
            self.made.append(body)
            metadata = body["metadata"]
            name = metadata.get("name") or f"{metadata['generateName']}{len(self.made)}"
            return 201, {**body, "metadata": {**metadata, "name": name, "uid": f"uid-{name}"}}
        if method in ("PATCH", "DELETE") and path.rpartition("/")[0] in self.paths:
            return 200, {"metadata": {}}
        self.unknown.append(f"{method} {path}")
        return 404, {"message": "not found"}


@contextlib.contextmanager
def recorded_api(kubeconfig: Path, namespace: str = "default") -> Iterator[RecordedApi]:
    """Such a server for the block, and a ``kubeconfig`` by which clients find it."""
    api = RecordedApi(namespace)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, said = api.answer(self.command, self.path.partition("?")[0], json.loads(body or "null"))
            answer = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            """Nothing on the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    }
    kubeconfig.write_text(yaml.safe_dump(config))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
