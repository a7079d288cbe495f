"""A small Hub on this machine: the part of the protocol that huggingface_hub and transformers use for a model.

Repositories live in memory. Requests are recorded, and faults can be planted: an error in place of an answer, an
answer that is lost after the request was carried out, or something that happens in between.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote

import uvicorn
import yaml
from hub_storage import Blob, HubRefusalError, Repo, described
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

REPO = r"(?P<repo>[^/]+/[^/]+)"
MODEL = rf"/api/models/{REPO}"


@dataclass
class Fault:
    pattern: str
    times: int
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    first: Callable[[], None] | None = None


class LocalHub:
    """A context manager; ``url`` is the endpoint, ``token`` the one token that it accepts."""

    def __init__(self, token: str = "hf_" + "localhubtoken") -> None:
        self.token = token
        self.reset()
        self.socket = socket.create_server(("127.0.0.1", 0))
        # An answer leaves in two writes; without this the second waits 40 ms for the first's acknowledgement.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(
            self.app, interface="asgi3", log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        # The socket listens already: whoever connects before the thread runs waits in its queue.
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    def __enter__(self) -> LocalHub:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()

    def reset(self) -> None:
        """Forgets everything."""
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[str] = []

    def fail(self, pattern: str, status: int, times: int = 1, **headers: str) -> None:
        """The next ``times`` requests whose ``METHOD /path`` matches answer ``status``."""
        self.faults.append(Fault(pattern, times, status, {key.replace("_", "-"): headers[key] for key in headers}))

    def drop(self, pattern: str, times: int = 1) -> None:
        """The next ``times`` matching requests are carried out, and the connection breaks before the answer."""
        self.faults.append(Fault(pattern, times, drop=True))

    def before(self, pattern: str, action: Callable[[], None]) -> None:
        """``action`` runs just before the next matching request is carried out."""
        self.faults.append(Fault(pattern, 1, first=action))

    def requests(self, pattern: str) -> int:
        """How many requests matched."""
        return sum(re.search(pattern, line) is not None for line in self.log)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        # The raw path: a revision such as "exp/a" arrives as one segment, "exp%2Fa".
        path = scope["raw_path"].decode()
        line = f"{request.method} {path}"
        self.log.append(line)
        fault = next((fault for fault in self.faults if fault.times and re.search(fault.pattern, line)), None)
        if fault is not None:
            fault.times -= 1
            if fault.first is not None:
                fault.first()
        try:
            if fault is not None and fault.status is not None:
                # A 409 of the real Hub names the repository that exists.
                extra = {"url": self.url} if fault.status == 409 else {}
                code = "RepoNotFound" if fault.status == 404 else ""
                raise HubRefusalError(fault.status, f"planted {fault.status}", code, **extra)
            response = self.answer(request, path, await request.body())
        except HubRefusalError as refusal:
            response = refusal.response(fault.headers if fault else None)
        if fault is not None and fault.drop:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99")]})
            return  # uvicorn closes a connection whose answer is not complete
        await response(scope, receive, send)

    def answer(self, request: Request, path: str, body: bytes) -> Response:
        for method, pattern, handler in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and request.method in method.split("|"):
                groups = {key: unquote(value or "") for key, value in match.groupdict().items()}
                if handler is not LocalHub.put_object:
                    self.authorize(request, self.repos.get(groups.get("repo", "")))
                if "repo" in groups:
                    if groups["repo"] not in self.repos:
                        raise HubRefusalError(404, "Repository not found", "RepoNotFound")
                    return handler(self, self.repos[groups.pop("repo")], body, path, **groups)
                return handler(self, body, **groups)
        raise HubRefusalError(404, f"no such endpoint: {request.method} {path}", "EntryNotFound")

    def authorize(self, request: Request, repo: Repo | None) -> None:
        reading = request.method in ("GET", "HEAD")
        if reading and repo is not None and not repo.private:
            return
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise HubRefusalError(401, "Invalid username or password.")

    def whoami(self, body: bytes) -> Response:
        return JSONResponse({"type": "user", "name": "local", "orgs": [], "auth": {"type": "access_token"}})

    def create(self, body: bytes) -> Response:
        wanted = json.loads(body)
        repo_id = f"{wanted.get('organization') or 'local'}/{wanted['name']}"
        url = f"{self.url}/{repo_id}"
        if repo_id in self.repos:
            raise HubRefusalError(409, "You already created this model repo", url=url)
        private = wanted.get("private") or wanted.get("visibility") == "private"
        repo = self.repos[repo_id] = Repo(bool(private))
        repo.commit("main", "initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n")})
        return JSONResponse({"url": url, "name": repo_id})

    def validate_yaml(self, body: bytes) -> Response:
        text = json.loads(body)["content"]
        try:
            metadata = yaml.safe_load(text.split("---\n")[1])
            errors = [] if isinstance(metadata, dict) else [{"message": "no mapping"}]
        except (IndexError, yaml.YAMLError) as error:
            errors = [{"message": str(error)}]
        return JSONResponse({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, repo: Repo, body: bytes, path: str, revision: str) -> Response:
        files = repo.at(revision).files
        answer = []
        for wanted in json.loads(body)["files"]:
            name, blob = wanted["path"], files.get(wanted["path"])
            mode = "lfs" if name.endswith(".safetensors") else "regular"
            oid = (blob.sha256 if blob.lfs else blob.oid) if blob else None
            answer.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return JSONResponse({"files": answer})

    def lfs_batch(self, repo: Repo, body: bytes, path: str) -> Response:
        objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in json.loads(body)["objects"]]
        for wanted in objects:
            if wanted["oid"] not in self.lfs:
                upload = {"href": f"{self.url}/lfs/{wanted['oid']}"}
                verify = {"href": self.url + path.replace("/objects/batch", "/verify")}
                wanted["actions"] = {"upload": upload, "verify": verify}
        return JSONResponse({"transfer": "basic", "objects": objects})

    def put_object(self, body: bytes, oid: str) -> Response:
        if hashlib.sha256(body).hexdigest() != oid:
            raise HubRefusalError(400, "the bytes don't have this SHA-256")
        self.lfs[oid] = body
        return Response()

    def lfs_verify(self, repo: Repo, body: bytes, path: str) -> Response:
        wanted = json.loads(body)
        if len(self.lfs.get(wanted["oid"], b"")) != wanted["size"]:
            raise HubRefusalError(404, "no such object", "EntryNotFound")
        return JSONResponse({})

    def commit(self, repo: Repo, body: bytes, path: str, revision: str) -> Response:
        head = repo.at(revision)
        files, title = dict(head.files), ""
        for line in map(json.loads, body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, head.oid):
                    raise HubRefusalError(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                files[value["path"]] = Blob(self.lfs[value["oid"]], lfs=True)
            elif files.pop(value["path"], None) is None:
                raise HubRefusalError(404, "A file with this name doesn't exist", "EntryNotFound")
        made = repo.commit(revision, title, files)
        url = f"{self.url}{path.removeprefix('/api/models').rpartition('/')[0]}/{made.oid}"
        return JSONResponse({"success": True, "commitOid": made.oid, "commitUrl": url})

    def add_ref(self, repo: Repo, body: bytes, path: str, kind: str, name: str) -> Response:
        wanted = json.loads(body or b"{}")
        refs, start = (repo.tags, name) if kind == "tag" else (repo.branches, wanted.get("startingPoint", "main"))
        name = wanted["tag"] if kind == "tag" else name
        if name in refs:
            raise HubRefusalError(409, f"Reference {name} exists already")
        refs[name] = repo.at(start).oid
        return JSONResponse({})

    def refs(self, repo: Repo, body: bytes, path: str) -> Response:
        def listed(kind: str, refs: dict[str, str]) -> list[dict[str, str]]:
            return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": refs[name]} for name in refs]

        found = {"branches": listed("heads", repo.branches), "tags": listed("tags", repo.tags), "converts": []}
        return JSONResponse(found)

    def tree(self, repo: Repo, body: bytes, path: str, revision: str, below: str) -> Response:
        files = {name: blob for name, blob in repo.at(revision).files.items() if name.startswith(below)}
        if below and not files:
            raise HubRefusalError(404, f"{below} does not exist", "EntryNotFound")
        return JSONResponse([described(name, blob) for name, blob in files.items()])

    def paths_info(self, repo: Repo, body: bytes, path: str, revision: str) -> Response:
        files = repo.at(revision).files
        wanted = parse_qs(body.decode()).get("paths", [])
        return JSONResponse([described(name, files[name]) for name in wanted if name in files])

    def info(self, repo: Repo, body: bytes, path: str, revision: str) -> Response:
        commit = repo.at(revision or "main")
        siblings = [{"rfilename": name} for name in commit.files]
        repo_id = next(name for name, known in self.repos.items() if known is repo)
        return JSONResponse({"id": repo_id, "sha": commit.oid, "private": repo.private, "siblings": siblings})

    def resolve(self, repo: Repo, body: bytes, path: str, revision: str, name: str) -> Response:
        commit = repo.at(revision)
        blob = commit.files.get(name)
        if blob is None:
            raise HubRefusalError(404, f"{name} does not exist", "EntryNotFound")
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.oid}"'}
        if blob.lfs:
            headers |= {"X-Linked-Size": str(len(blob.data)), "X-Linked-Etag": f'"{blob.sha256}"'}
        return Response(blob.data, media_type="application/octet-stream", headers=headers)


ROUTES: list[tuple[str, str, Callable[..., Response]]] = [
    ("GET", "/api/whoami-v2", LocalHub.whoami),
    ("POST", "/api/repos/create", LocalHub.create),
    ("POST", "/api/validate-yaml", LocalHub.validate_yaml),
    ("POST", rf"{MODEL}/preupload/(?P<revision>[^/]+)", LocalHub.preupload),
    ("POST", rf"{MODEL}/commit/(?P<revision>[^/]+)", LocalHub.commit),
    ("POST", rf"{MODEL}/(?P<kind>tag|branch)/(?P<name>[^/]+)", LocalHub.add_ref),
    ("GET", rf"{MODEL}/refs", LocalHub.refs),
    ("GET", rf"{MODEL}/tree/(?P<revision>[^/]+)(?:/(?P<below>.+))?", LocalHub.tree),
    ("POST", rf"{MODEL}/paths-info/(?P<revision>[^/]+)", LocalHub.paths_info),
    ("GET", rf"{MODEL}(?:/revision/(?P<revision>[^/]+))?", LocalHub.info),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", LocalHub.lfs_batch),
    ("POST", rf"/{REPO}\.git/info/lfs/verify", LocalHub.lfs_verify),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", LocalHub.put_object),
    ("GET|HEAD", rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", LocalHub.resolve),
]
