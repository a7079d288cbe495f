"""The local Hub answers the real client as the Hub does: what the other tests rest on."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, file_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import _http
from local_hub import Blob, LocalHub, Repo

REPO = "local/model"
WEIGHTS = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def server() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def hub(server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    server.reset()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    repo = server.repos[REPO] = Repo(private=True)
    repo.commit("main", "first", {"config.json": Blob(b"{}"), "model.safetensors": Blob(WEIGHTS, lfs=True)})
    return server


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


def add(name: str, data: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path_in_repo=name, path_or_fileobj=data)


def test_a_large_file_is_uploaded_in_parts(hub: LocalHub, api: HfApi) -> None:
    hub.part_size = 300
    data = WEIGHTS[::-1]
    api.create_commit(REPO, [add("model.safetensors", data)], commit_message="in parts")
    assert hub.repos[REPO].files()["model.safetensors"] == data
    assert hub.requests("PUT .*/parts/") == 4


def test_a_commit_on_what_is_no_longer_the_head_is_refused(hub: LocalHub, api: HfApi) -> None:
    old = api.model_info(REPO).sha
    api.create_commit(REPO, [add("a.txt", b"a"), CommitOperationDelete("config.json")], commit_message="moves")
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_commit(REPO, [add("b.txt", b"b")], commit_message="late", parent_commit=old)
    assert caught.value.response.status_code == 412
    assert set(hub.repos[REPO].files()) == {"a.txt", "model.safetensors"}


def test_a_snapshot_has_the_same_bytes(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    hub.repos[REPO].commit("main", "nested", hub.repos[REPO].at("main").files | {"a/b.txt": Blob(b"b")})
    folder = Path(api.snapshot_download(REPO, local_dir=tmp_path / "local"))
    brought = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }
    assert brought == hub.repos[REPO].files()
    assert {entry.path for entry in api.list_repo_tree(REPO)} == {"config.json", "model.safetensors", "a"}


def test_a_download_that_breaks_off_goes_on_where_it_was(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    hub.truncate("GET .*/resolve/.*/model.safetensors", times=2)
    path = api.hf_hub_download(REPO, "model.safetensors", local_dir=tmp_path)
    assert Path(path).read_bytes() == WEIGHTS
    assert hub.requests("GET .*/resolve/.*/model.safetensors") == 3


def test_branches_tags_and_pages_of_commits(hub: LocalHub, api: HfApi) -> None:
    repo = hub.repos[REPO]
    for number in range(7):
        repo.commit("main", f"commit {number}", {"config.json": Blob(b"%d" % number)})
    titles = [commit.title for commit in api.list_repo_commits(REPO)]
    assert titles == [*(f"commit {number}" for number in range(6, -1, -1)), "first"]
    api.create_branch(REPO, branch="exp/a", revision=repo.commits[2].oid)
    api.create_tag(REPO, tag="v/1", revision="exp/a")
    refs = api.list_repo_refs(REPO)
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v/1": repo.commits[2].oid}
    assert {ref.name for ref in refs.branches} == {"main", "exp/a"}
    api.delete_tag(REPO, tag="v/1")
    api.delete_branch(REPO, branch="exp/a")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="v/1")
    with pytest.raises(HfHubHTTPError):
        api.delete_branch(REPO, branch="main")


def test_a_pull_request_from_its_opening_to_its_merge(hub: LocalHub, api: HfApi) -> None:
    opened = api.create_commit(REPO, [add("a.txt", b"a")], commit_message="propose", create_pr=True)
    assert opened.pr_revision == "refs/pr/1"
    api.create_commit(REPO, [add("b.txt", b"b")], commit_message="more", revision="refs/pr/1")
    assert {"a.txt", "b.txt"} <= {entry.path for entry in api.list_repo_tree(REPO, revision="refs/pr/1")}
    refs = api.list_repo_refs(REPO, include_pull_requests=True).pull_requests
    assert [(ref.ref, ref.target_commit) for ref in refs or []] == [
        ("refs/pr/1", api.model_info(REPO, revision="refs/pr/1").sha)
    ]
    assert [(found.num, found.status) for found in api.get_repo_discussions(REPO)] == [(1, "open")]
    assert "a.txt" not in hub.repos[REPO].files()
    api.merge_pull_request(REPO, 1)
    assert {"a.txt", "b.txt"} <= hub.repos[REPO].files().keys()
    assert not list(api.get_repo_discussions(REPO, discussion_status="open"))


def status_of(request: Any) -> int:
    with pytest.raises(HfHubHTTPError) as caught:
        request()
    return caught.value.response.status_code


def test_who_may_do_what(hub: LocalHub, api: HfApi) -> None:
    reader = HfApi(endpoint=hub.url, token=hub.read_token)
    nobody, wrong = HfApi(endpoint=hub.url, token=False), HfApi(endpoint=hub.url, token="hf_" + "wrongtoken")
    assert reader.model_info(REPO).private
    assert status_of(lambda: reader.create_tag(REPO, tag="v1")) == 403
    assert status_of(lambda: reader.create_repo("local/other")) == 403
    assert status_of(lambda: nobody.model_info(REPO)) == 401
    assert status_of(lambda: wrong.model_info(REPO)) == 401
    hub.repos[REPO].private = False
    assert not nobody.model_info(REPO).private
    assert status_of(lambda: nobody.create_tag(REPO, tag="v1")) == 401
    assert api.whoami()["auth"]["accessToken"]["role"] == "write"


def test_what_is_not_there(api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("local/nosuch")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="nosuch")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(REPO, "nosuch.json", local_dir=tmp_path)
    assert not api.file_exists(REPO, "nosuch.json")
    assert [found.path for found in api.get_paths_info(REPO, ["config.json", "nosuch"])] == ["config.json"]
