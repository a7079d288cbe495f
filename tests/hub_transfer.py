"""The bytes of the local Hub's files: uploads by Git LFS, whole or in parts, and downloads, whole or from a byte on."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from hub_storage import HubRefusalError, Repo
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from local_hub import Call, LocalHub


def lfs_batch(hub: LocalHub, repo: Repo, call: Call) -> Response:
    objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in call.json()["objects"]]
    for wanted in objects:
        if wanted["oid"] not in hub.lfs:
            verify = {"href": hub.url + call.path.replace("/objects/batch", "/verify")}
            wanted["actions"] = {"upload": upload(hub, wanted["oid"], wanted["size"]), "verify": verify}
    return JSONResponse({"transfer": "basic", "objects": objects})


def upload(hub: LocalHub, oid: str, size: int) -> dict[str, Any]:
    url = f"{hub.url}/lfs/{oid}"
    if hub.part_size is None or size <= hub.part_size:
        return {"href": url}
    count = -(-size // hub.part_size)
    parts = {f"{number:05d}": f"{url}/parts/{number}" for number in range(1, count + 1)}
    return {"href": f"{url}/complete", "header": {"chunk_size": str(hub.part_size), **parts}}


def put_object(hub: LocalHub, call: Call, oid: str) -> Response:
    store(hub, oid, call.body)
    return Response()


def put_part(hub: LocalHub, call: Call, oid: str, number: str) -> Response:
    hub.parts[oid, int(number)] = call.body
    return Response(headers={"ETag": etag(call.body)})


def complete(hub: LocalHub, call: Call, oid: str) -> Response:
    wanted = call.json()["parts"]
    parts = [hub.parts.get((oid, part["partNumber"]), b"") for part in wanted]
    if [etag(part) for part in parts] != [part["etag"] for part in wanted]:
        raise HubRefusalError(400, "a part isn't what was uploaded")
    store(hub, oid, b"".join(parts))
    return JSONResponse({})


def store(hub: LocalHub, oid: str, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != oid:
        raise HubRefusalError(400, "the bytes don't have this SHA-256")
    hub.lfs[oid] = data


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def lfs_verify(hub: LocalHub, repo: Repo, call: Call) -> Response:
    wanted = call.json()
    if len(hub.lfs.get(wanted["oid"], b"")) != wanted["size"]:
        raise HubRefusalError(404, "no such object", "EntryNotFound")
    return JSONResponse({})


def resolve(hub: LocalHub, repo: Repo, call: Call, revision: str, name: str) -> Response:
    commit = repo.at(revision)
    blob = commit.files.get(name)
    if blob is None:
        raise HubRefusalError(404, f"{name} does not exist", "EntryNotFound")
    data = hub.handed_out.get(name, blob.data)
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
    if blob.lfs:
        headers |= {"X-Linked-Size": str(len(blob.data)), "X-Linked-Etag": f'"{blob.sha256}"'}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("range", ""))
    if asked is None:
        return Response(data, media_type="application/octet-stream", headers=headers)
    size = len(data)
    start, end = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
    if start >= size:
        raise HubRefusalError(416, "Range Not Satisfiable")
    headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    return Response(data[start : end + 1], 206, media_type="application/octet-stream", headers=headers)
