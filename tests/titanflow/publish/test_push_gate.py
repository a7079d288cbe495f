"""A push asks before it takes the place of what is published."""

import pytest
from finished_run import REPO
from local_hub import Blob, LocalHub
from pushing import Push

from titanflow.common.errors import HubError

COMMIT = "POST .*/commit/"


class Asked:
    """A gate: what it was asked, and whether it lets pass."""

    def __init__(self) -> None:
        self.about: list[str | None] = []
        self.passes = True

    def __call__(self, last: str | None) -> None:
        self.about.append(last)
        if not self.passes:
            raise RuntimeError("held back")


def test_nothing_is_made_where_the_first_is_held_back(hub: LocalHub, publish: Push) -> None:
    gate = Asked()
    gate.passes = False
    with pytest.raises(RuntimeError, match="held back"):
        publish(ask=gate)
    assert hub.repos == {}
    assert gate.about == [None]


def test_the_gate_is_asked_about_what_is_published_last(hub: LocalHub, publish: Push) -> None:
    gate = Asked()
    first = publish(ask=gate)
    assert gate.about == [None]
    repo = hub.repos[REPO]
    repo.commit("main", "not published", repo.at("main").files | {"notes.txt": Blob(b"by hand")})
    second = publish(tag="run-8", config__json=b"{}", ask=gate)
    assert gate.about == [None, first.commit]
    gate.passes = False
    with pytest.raises(RuntimeError, match="held back"):
        publish(tag="run-9", config__json=b"[]", ask=gate)
    assert gate.about[2:] == [second.commit]
    assert [commit.title for commit in repo.commits] == ["initial commit", "a run", "not published", "a run"]
    assert set(repo.tags) == {"run-7", "run-8"}


def test_what_is_published_already_is_not_asked_about(hub: LocalHub, publish: Push) -> None:
    publish()
    gate = Asked()
    publish(ask=gate)
    publish(tag="again", ask=gate)
    assert gate.about == []


def test_a_push_that_was_cut_off_before_its_tag_is_asked_about_again(hub: LocalHub, publish: Push) -> None:
    hub.fail("POST .*/tag/", 403)
    gate = Asked()
    with pytest.raises(HubError):
        publish(ask=gate)
    gate.passes = False
    with pytest.raises(RuntimeError, match="held back"):
        publish(ask=gate)
    assert gate.about == [None, None]
    assert hub.repos[REPO].tags == {}


def test_the_gate_is_asked_again_where_another_is_published_meanwhile(hub: LocalHub, publish: Push) -> None:
    first = publish()
    gate = Asked()
    theirs = []

    def interfere() -> None:
        repo = hub.repos[REPO]
        theirs.append(repo.commit("main", "theirs", repo.at("main").files | {"config.json": Blob(b"theirs")}).oid)
        repo.tags["theirs"] = theirs[0]
        gate.passes = False

    hub.before(COMMIT, interfere)
    with pytest.raises(RuntimeError, match="held back"):
        publish(tag="run-8", config__json=b"{}", ask=gate)
    assert gate.about == [first.commit, *theirs]
    assert hub.repos[REPO].commits[-1].title == "theirs"
    assert "run-8" not in hub.repos[REPO].tags
