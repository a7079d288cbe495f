from pathlib import Path

import pytest
from finished_run import REPO
from local_hub import LocalHub
from pushing import Push, local, pushes, sent

from titanflow.common.errors import HubError
from titanflow.publish.bundle import Entry, bytes_entry
from titanflow.publish.hub.push import Pushed, open_pull_request
from titanflow.publish.hub.repository import Release, Repository

Bundle = dict[str, Entry]
CREATE = "POST .*/commit/"


@pytest.fixture
def propose(repository: Repository, bundle: Bundle, tmp_path: Path) -> Push:
    def propose(branch: str = "main", **files: bytes) -> Pushed:
        changed = {name.replace("__", "."): bytes_entry(data) for name, data in files.items()}
        release = Release(bundle | changed, branch, "a run", True, tmp_path / "downloaded")
        return open_pull_request(release, repository)

    return propose


def test_the_bundle_waits_for_a_review(hub: LocalHub, propose: Push, bundle: Bundle) -> None:
    proposed = propose()
    repo = hub.repos[REPO]
    assert proposed.pull_request == f"{hub.url}/{REPO}/discussions/1"
    assert sent(hub, "refs/pr/1") == local(bundle)
    assert repo.at("refs/pr/1").oid == proposed.commit
    assert sent(hub, "main") == {}
    assert repo.tags == {}


def test_the_same_again_is_the_same_pull_request(hub: LocalHub, propose: Push) -> None:
    assert propose() == propose()
    assert len(hub.repos[REPO].pull_requests) == 1
    other = propose(config__json=b"{}")
    assert other.pull_request.endswith("/discussions/2")
    hub.repos[REPO].pull_requests[0].status = "closed"
    assert propose().pull_request.endswith("/discussions/3")


def test_a_lost_answer_opens_no_second_one(hub: LocalHub, propose: Push, waits: list[float]) -> None:
    hub.drop(CREATE)
    assert propose().pull_request.endswith("/discussions/1")
    assert len(hub.repos[REPO].pull_requests) == 1
    assert waits == [1.0]


def test_one_that_was_merged_needs_a_tag_and_no_commit(hub: LocalHub, propose: Push, publish: Push) -> None:
    propose()
    merged = hub.repos[REPO].merge(1)
    again = propose()
    assert (again.pull_request, again.commit, again.new) == ("", merged.oid, False)
    before = pushes(hub)
    assert publish() == Pushed(merged.oid, "run-7", new=True)
    assert pushes(hub) == before
    assert hub.repos[REPO].tags == {"run-7": merged.oid}


def test_it_goes_to_the_branch_that_is_named(hub: LocalHub, propose: Push) -> None:
    propose(branch="next")
    assert hub.repos[REPO].pull_requests[0].target == "next"


def test_without_the_right_to_open_one(hub: LocalHub, propose: Push) -> None:
    hub.fail(CREATE, 403)
    with pytest.raises(HubError, match="Couldn't open a pull request on local/stdlib-sft: the Hub answered 403"):
        propose()
