"""The local Hub's answers about files: what a revision holds, and a commit that changes it whole or not at all."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from hub_storage import Blob, HubRefusalError, Repo, described
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from local_hub import Call, LocalHub


def preupload(hub: LocalHub, repo: Repo, call: Call, revision: str) -> Response:
    files = repo.at(revision).files
    answer = []
    for wanted in call.json()["files"]:
        name, blob = wanted["path"], files.get(wanted["path"])
        mode = "lfs" if name.endswith(".safetensors") else "regular"
        oid = (blob.sha256 if blob.lfs else blob.oid) if blob else None
        answer.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return JSONResponse({"files": answer})


def commit(hub: LocalHub, repo: Repo, call: Call, revision: str) -> Response:
    head = repo.at(revision)
    title, files = "", dict(head.files)
    for line in map(json.loads, call.body.splitlines()):
        key, value = line["key"], line["value"]
        if key == "header":
            title = value["summary"]
            if value.get("parentCommit") not in (None, head.oid) and not call.query.get("create_pr"):
                raise HubRefusalError(412, "A commit has happened since. Please refresh and try again.")
        else:
            change(files, key, value, hub.lfs)
    api = f"{hub.url}{call.path.removeprefix('/api/models').rpartition('/')[0]}"
    if call.query.get("create_pr"):
        opened, made = repo.open(revision, title, files, head.oid)
        pull_request = {"pullRequestUrl": f"{hub.url}/{hub.name_of(repo)}/discussions/{opened.number}"}
    else:
        made, pull_request = repo.commit(revision, title, files), {}
    return JSONResponse({"success": True, "commitOid": made.oid, "commitUrl": f"{api}/{made.oid}", **pull_request})


def change(files: dict[str, Blob], key: str, value: dict[str, Any], lfs: dict[str, bytes]) -> None:
    """One line of a commit's payload."""
    path = value["path"]
    if key == "file":
        files[path] = Blob(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in lfs:
            raise HubRefusalError(400, f"Your push was rejected: {path} points to an LFS object that does not exist")
        files[path] = Blob(lfs[value["oid"]], lfs=True)
    elif key == "deletedFolder":
        for name in [name for name in files if name.startswith(f"{path.rstrip('/')}/")]:
            del files[name]
    elif files.pop(path, None) is None:
        raise HubRefusalError(404, "A file with this name doesn't exist", "EntryNotFound")


def tree(hub: LocalHub, repo: Repo, call: Call, revision: str, below: str) -> Response:
    inside = f"{below}/" if below else ""
    files = {name: blob for name, blob in repo.at(revision).files.items() if name.startswith(inside)}
    if below and not files:
        raise HubRefusalError(404, f"{below} does not exist", "EntryNotFound")
    if call.query.get("recursive", "").lower() not in ("true", "1"):
        nested = [name for name in files if "/" in name.removeprefix(inside)]
        folders = dict.fromkeys(inside + name.removeprefix(inside).split("/")[0] for name in nested)
        listed = [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in folders]
        files = {name: blob for name, blob in files.items() if name not in nested}
    else:
        listed = []
    return JSONResponse([*listed, *(described(name, blob) for name, blob in files.items())])


def paths_info(hub: LocalHub, repo: Repo, call: Call, revision: str) -> Response:
    files = repo.at(revision).files
    wanted = parse_qs(call.body.decode()).get("paths", [])
    return JSONResponse([described(name, files[name]) for name in wanted if name in files])
