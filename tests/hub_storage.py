"""The repositories of the local Hub: blobs, commits and refs, in memory."""

from __future__ import annotations

import hashlib
import json
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


@dataclass
class Repo:
    private: bool
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, title: str, files: dict[str, Blob]) -> Commit:
        seed = json.dumps([len(self.commits), title, {name: blob.oid for name, blob in files.items()}])
        commit = Commit(hashlib.sha1(seed.encode()).hexdigest(), title, files)
        self.commits.append(commit)
        self.branches[branch] = commit.oid
        return commit

    def at(self, revision: str) -> Commit:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        for commit in self.commits:
            if commit.oid == oid:
                return commit
        raise HubRefusalError(404, "Revision not found", "RevisionNotFound")

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return {name: blob.data for name, blob in self.at(revision).files.items()}


def described(name: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "oid": blob.oid, "size": len(blob.data)}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
    return entry
