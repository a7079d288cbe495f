"""A small Hub on this machine: the part of the protocol that huggingface_hub and transformers use for a model.

Repositories live in memory. Requests are recorded, and faults can be planted at any of them (:mod:`hub_faults`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import hub_content as content
import hub_repositories as repositories
import hub_transfer as transfer
from hub_faults import Faults, answer
from hub_storage import Blob, Commit, HubRefusalError, PullRequest, Repo
from local_server import LocalServer
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["Blob", "Call", "Commit", "LocalHub", "PullRequest", "Repo"]

REPO = r"(?P<repo>[^/]+/[^/]+)"
MODEL = rf"/api/models/{REPO}"
REVISION = r"(?P<revision>[^/]+)"
OID = r"(?P<oid>[0-9a-f]{64})"


@dataclass(frozen=True)
class Call:
    """One request. The path is raw: a revision such as "exp/a" arrives as one segment, "exp%2Fa"."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


class LocalHub(Faults, LocalServer):
    """A context manager; ``url`` is the endpoint, ``token`` may write, ``read_token`` may read private repositories.

    Files larger than ``part_size`` bytes are uploaded in parts. ``handed_out`` holds, by a file's name, bytes that a
    download gets in place of what the hashes stand for: a storage that lost some.
    """

    def __init__(self, token: str = "hf_" + "localhubtoken", read_token: str = "hf_" + "readonlytoken") -> None:
        Faults.__init__(self)
        self.token, self.read_token = token, read_token
        self.reset()
        LocalServer.__init__(self, self.app)

    def reset(self) -> None:
        """Forgets everything."""
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.part_size: int | None = None
        self.handed_out: dict[str, bytes] = {}
        self.faults.clear()
        self.log: list[str] = []

    def requests(self, pattern: str) -> int:
        """How many requests matched."""
        return sum(re.search(pattern, line) is not None for line in self.log)

    def name_of(self, repo: Repo) -> str:
        return next(name for name, known in self.repos.items() if known is repo)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = scope["raw_path"].decode()
        line = f"{request.method} {path}"
        self.log.append(line)
        body = await request.body()
        fault = self.met(line)
        if fault is not None:
            fault.action()
        try:
            if fault is not None and fault.kind == "refuse":
                # A 409 of the real Hub names the repository that exists.
                extra = {"url": self.url} if fault.status == 409 else {}
                code = "RepoNotFound" if fault.status == 404 else ""
                raise HubRefusalError(fault.status, f"planted {fault.status}", code, **extra)
            response = self.carry_out(Call(request.method, path, request.query_params, request.headers, body))
        except HubRefusalError as refusal:
            response = refusal.response(fault.headers if fault else None)
        await answer(response, fault, scope, receive, send)

    def carry_out(self, call: Call) -> Response:
        for method, pattern, handler in ROUTES:
            match = re.fullmatch(pattern, call.path)
            if match and call.method in method.split("|"):
                groups = {key: unquote(value or "") for key, value in match.groupdict().items()}
                # What is below /lfs stands for a signed URL of a storage server.
                if not call.path.startswith("/lfs/"):
                    self.authorize(call, self.repos.get(groups.get("repo", "")))
                if "repo" in groups:
                    if groups["repo"] not in self.repos:
                        raise HubRefusalError(404, "Repository not found", "RepoNotFound")
                    return handler(self, self.repos[groups.pop("repo")], call, **groups)
                return handler(self, call, **groups)
        raise HubRefusalError(404, f"no such endpoint: {call.method} {call.path}", "EntryNotFound")

    def authorize(self, call: Call, repo: Repo | None) -> None:
        reading = call.method in ("GET", "HEAD") or call.path.partition("/paths-info/")[1] != ""
        if call.token and call.token not in (self.token, self.read_token):
            raise HubRefusalError(401, "Invalid credentials in Authorization header")
        if not call.token and not (reading and repo is not None and not repo.private):
            raise HubRefusalError(401, "Invalid username or password.", "RepoNotFound" if repo is None else "")
        if repo is not None and repo.gated and "/resolve/" in call.path and call.token != self.token:
            # What there is may be seen by all, the files by those who were let in.
            raise HubRefusalError(403, "Access to this model is restricted", "GatedRepo")
        if not reading and call.token == self.read_token:
            raise HubRefusalError(403, "You don't have the rights to create or change this model")


ROUTES: list[tuple[str, str, Callable[..., Response]]] = [
    ("GET", "/api/whoami-v2", repositories.whoami),
    ("POST", "/api/repos/create", repositories.create),
    ("POST", "/api/validate-yaml", repositories.validate_yaml),
    ("POST", rf"{MODEL}/preupload/{REVISION}", content.preupload),
    ("POST", rf"{MODEL}/commit/{REVISION}", content.commit),
    ("POST", rf"{MODEL}/(?P<kind>tag|branch)/(?P<name>[^/]+)", repositories.add_ref),
    ("DELETE", rf"{MODEL}/(?P<kind>tag|branch)/(?P<name>[^/]+)", repositories.delete_ref),
    ("GET", rf"{MODEL}/refs", repositories.refs),
    ("GET", rf"{MODEL}/commits/{REVISION}", repositories.commits),
    ("GET", rf"{MODEL}/discussions", repositories.discussions),
    ("POST", rf"{MODEL}/discussions/(?P<number>\d+)/(?P<change>merge|status)", repositories.change_discussion),
    ("GET", rf"{MODEL}/tree/{REVISION}(?:/(?P<below>.+))?", content.tree),
    ("POST", rf"{MODEL}/paths-info/{REVISION}", content.paths_info),
    ("GET", rf"{MODEL}(?:/revision/{REVISION})?", repositories.info),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", transfer.lfs_batch),
    ("POST", rf"/{REPO}\.git/info/lfs/verify", transfer.lfs_verify),
    ("PUT", rf"/lfs/{OID}", transfer.put_object),
    ("PUT", rf"/lfs/{OID}/parts/(?P<number>\d+)", transfer.put_part),
    ("POST", rf"/lfs/{OID}/complete", transfer.complete),
    ("GET|HEAD", rf"/{REPO}/resolve/{REVISION}/(?P<name>.+)", transfer.resolve),
]
