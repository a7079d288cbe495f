"""Branches and tags of a repository whose names are in the way of a new tag or branch."""

import pytest
from finished_run import REPO, FinishedRun
from local_hub import Blob, LocalHub, Repo

from titanflow.common.errors import HubError
from titanflow.publish.publish import publish


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tag": "dev"}, "has a branch dev: set `tag` to another name than dev"),
        ({"revision": "v1"}, "has a tag v1: set `revision` to another name than v1"),
        ({"tag": "v1/final"}, "has a tag v1: set `tag` to another name than v1/final"),
        ({"tag": "best"}, "has a tag best/of-all: set `tag` to another name than best"),
        ({"revision": "dev/mine"}, "has a branch dev: set `revision` to another name than dev/mine"),
        ({"revision": "v1", "pull_request": True}, "has a tag v1: set `revision`"),
        ({"tag": "dev", "dry_run": True}, "has a branch dev: set `tag`"),
    ],
)
def test_a_name_in_use_is_refused_before_anything_is_sent(
    finished: FinishedRun, hub: LocalHub, settings: dict[str, object], says: str
) -> None:
    """A tag that was called as a branch was refused when all was uploaded, and left an untagged commit."""
    repo = hub.repos[REPO] = Repo(private=True)
    first = repo.commit("main", "first", {"config.json": Blob(b"{}")}).oid
    repo.branches["dev"] = repo.tags["v1"] = repo.tags["best/of-all"] = first
    with pytest.raises(HubError) as caught:
        publish(finished.to_publish(target="hub", repo_id=REPO, **settings))
    assert says in str(caught.value)
    assert not [line for line in hub.log if line.startswith(("POST", "PUT")) and "paths-info" not in line]
