"""The repositories of the local Hub: blobs, commits, refs and pull requests, in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, Response


class HubRefusalError(Exception):
    def __init__(self, status: int, message: str = "", code: str = "", **extra: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.extra = status, message, code, extra

    def response(self, headers: dict[str, str] | None = None) -> Response:
        named = {"X-Error-Code": self.code, "X-Error-Message": self.message}
        headers = {key: value for key, value in named.items() if value} | (headers or {})
        return JSONResponse({"error": self.message, **self.extra}, self.status, headers)


@dataclass(frozen=True)
class Blob:
    data: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """Git's own hash: of the bytes, or of the pointer that stands in for them."""
        data = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def pointer(self) -> bytes:
        spec = "https://git-lfs.github.com/spec/v1"
        return f"version {spec}\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: dict[str, Blob]
    parent: str = ""


@dataclass
class PullRequest:
    number: int
    title: str
    target: str
    head: str
    status: str = "open"

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.number}"


@dataclass
class Repo:
    private: bool
    gated: bool = False
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: list[PullRequest] = field(default_factory=list)

    def commit(self, revision: str, title: str, files: dict[str, Blob]) -> Commit:
        """Puts a commit on a branch or a pull request."""
        pull_request = self.pull_request(revision)
        parent = pull_request.head if pull_request else self.branches.get(revision, "")
        made = self.add(title, files, parent)
        if pull_request:
            pull_request.head = made.oid
        else:
            self.branches[revision] = made.oid
        return made

    def add(self, title: str, files: dict[str, Blob], parent: str) -> Commit:
        seed = json.dumps([len(self.commits), title, parent, {name: blob.oid for name, blob in files.items()}])
        commit = Commit(hashlib.sha1(seed.encode()).hexdigest(), title, files, parent)
        self.commits.append(commit)
        return commit

    def open(self, target: str, title: str, files: dict[str, Blob], parent: str) -> tuple[PullRequest, Commit]:
        made = self.add(title, files, parent)
        opened = PullRequest(len(self.pull_requests) + 1, title, target, made.oid)
        self.pull_requests.append(opened)
        return opened, made

    def merge(self, number: int) -> Commit:
        """Merges as the Hub does where the branch didn't move: what was proposed becomes the branch's content."""
        merged = self.pull_requests[number - 1]
        merged.status = "merged"
        return self.commit(merged.target, f"{merged.title} (#{number})", self.at(merged.ref).files)

    def pull_request(self, revision: str) -> PullRequest | None:
        return next((found for found in self.pull_requests if found.ref == revision), None)

    def at(self, revision: str) -> Commit:
        pull_request = self.pull_request(revision)
        oid = pull_request.head if pull_request else self.branches.get(revision) or self.tags.get(revision) or revision
        for commit in self.commits:
            if commit.oid == oid:
                return commit
        raise HubRefusalError(404, "Revision not found", "RevisionNotFound")

    def history(self, revision: str) -> Iterator[Commit]:
        """A revision's commits, the newest first."""
        commit = self.at(revision)
        yield commit
        while commit.parent:
            commit = self.at(commit.parent)
            yield commit

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return {name: blob.data for name, blob in self.at(revision).files.items()}


def described(name: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "oid": blob.oid, "size": len(blob.data)}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
    return entry
