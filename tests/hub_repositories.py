"""The local Hub's answers about repositories: who asks, what there is, its branches, tags and pull requests."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import yaml
from hub_storage import Blob, HubRefusalError, PullRequest, Repo
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from local_hub import Call, LocalHub

DATE = "2026-01-01T00:00:00.000Z"
COMMITS_PER_PAGE = 3
"""The real Hub's are 50; few, so that a short history has pages."""


def whoami(hub: LocalHub, call: Call) -> Response:
    role = "write" if call.token == hub.token else "read"
    access = {"type": "access_token", "accessToken": {"displayName": "local", "role": role}}
    return JSONResponse({"type": "user", "name": "local", "orgs": [], "auth": access})


def create(hub: LocalHub, call: Call) -> Response:
    wanted = call.json()
    repo_id = f"{wanted.get('organization') or 'local'}/{wanted['name']}"
    url = f"{hub.url}/{repo_id}"
    if repo_id in hub.repos:
        raise HubRefusalError(409, "You already created this model repo", url=url)
    private = wanted.get("private") or wanted.get("visibility") == "private"
    repo = hub.repos[repo_id] = Repo(bool(private))
    repo.commit("main", "initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n")})
    return JSONResponse({"url": url, "name": repo_id})


def validate_yaml(hub: LocalHub, call: Call) -> Response:
    text = call.json()["content"]
    try:
        metadata = yaml.safe_load(text.split("---\n")[1])
        errors = [] if isinstance(metadata, dict) else [{"message": "no mapping"}]
    except (IndexError, yaml.YAMLError) as error:
        errors = [{"message": str(error)}]
    return JSONResponse({"errors": errors, "warnings": []}, 400 if errors else 200)


def info(hub: LocalHub, repo: Repo, call: Call, revision: str) -> Response:
    commit = repo.at(revision or "main")
    siblings = [{"rfilename": name} for name in commit.files]
    return JSONResponse({"id": hub.name_of(repo), "sha": commit.oid, "private": repo.private, "siblings": siblings})


def commits(hub: LocalHub, repo: Repo, call: Call, revision: str) -> Response:
    page = int(call.query.get("p", "0"))
    first = page * COMMITS_PER_PAGE
    found = list(islice(repo.history(revision), first, first + COMMITS_PER_PAGE + 1))
    listed = [
        {"id": commit.oid, "title": commit.title, "message": "", "date": DATE, "authors": [{"user": "local"}]}
        for commit in found[:COMMITS_PER_PAGE]
    ]
    more = len(found) > COMMITS_PER_PAGE
    headers = {"Link": f'<{hub.url}{call.path}?p={page + 1}>; rel="next"'} if more else {}
    return JSONResponse(listed, headers=headers)


def refs(hub: LocalHub, repo: Repo, call: Call) -> Response:
    def listed(kind: str, named: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": named[name]} for name in named]

    found: dict[str, Any] = {"branches": listed("heads", repo.branches), "tags": listed("tags", repo.tags)}
    found["converts"] = []
    if call.query.get("include_prs"):
        found["pullRequests"] = [
            {"name": pull_request.ref, "ref": pull_request.ref, "targetCommit": pull_request.head}
            for pull_request in repo.pull_requests
        ]
    return JSONResponse(found)


def add_ref(hub: LocalHub, repo: Repo, call: Call, kind: str, name: str) -> Response:
    wanted = call.json()
    named, start = (repo.tags, name) if kind == "tag" else (repo.branches, wanted.get("startingPoint", "main"))
    name = wanted["tag"] if kind == "tag" else name
    if name in named:
        raise HubRefusalError(409, f"Reference {name} exists already")
    named[name] = repo.at(start).oid
    return JSONResponse({})


def delete_ref(hub: LocalHub, repo: Repo, call: Call, kind: str, name: str) -> Response:
    named = repo.tags if kind == "tag" else repo.branches
    if name not in named:
        raise HubRefusalError(404, "Revision not found", "RevisionNotFound")
    if kind == "branch" and name == "main":
        raise HubRefusalError(403, "The default branch can't be deleted")
    del named[name]
    return JSONResponse({})


def discussions(hub: LocalHub, repo: Repo, call: Call) -> Response:
    wanted = call.query.get("status", "all")
    found = [described(hub, repo, each) for each in repo.pull_requests if wanted in ("all", each.status)]
    return JSONResponse({"count": len(found), "start": 0, "discussions": found})


def described(hub: LocalHub, repo: Repo, pull_request: PullRequest) -> dict[str, Any]:
    return {
        "num": pull_request.number,
        "title": pull_request.title,
        "status": pull_request.status,
        "isPullRequest": True,
        "author": {"name": "local"},
        "createdAt": DATE,
        "repo": {"name": hub.name_of(repo), "type": "model"},
    }


def change_discussion(hub: LocalHub, repo: Repo, call: Call, number: str, change: str) -> Response:
    if change == "merge":
        repo.merge(int(number))
    else:
        repo.pull_requests[int(number) - 1].status = call.json()["status"]
    return JSONResponse({"newStatus": {"id": "event", "type": "status-change", "createdAt": DATE}})
