from finished_run import REPO
from local_hub import Blob, LocalHub, Repo

from titanflow.publish.hub.repository import Repository


def history(hub: LocalHub, *titles: str) -> Repo:
    repo = hub.repos[REPO] = Repo(private=True)
    for title in titles:
        repo.commit("main", title, {"config.json": Blob(title.encode())})
    return repo


def commit_called(repo: Repo, title: str) -> str:
    return next(commit.oid for commit in repo.commits if commit.title == title)


def test_the_last_published_is_the_newest_tagged_commit_of_the_branch(hub: LocalHub, repository: Repository) -> None:
    repo = history(hub, *"abcdefgh")
    assert repository.last_published("main") is None
    repo.tags["first"] = commit_called(repo, "a")
    # On the last of three pages.
    assert repository.last_published("main") == commit_called(repo, "a")
    repo.tags["second"] = commit_called(repo, "f")
    assert repository.last_published("main") == commit_called(repo, "f")


def test_what_was_published_on_another_branch_does_not_count(hub: LocalHub, repository: Repository) -> None:
    repo = history(hub, "a", "b")
    repo.tags["base"] = commit_called(repo, "a")
    repo.branches["next"] = repo.branches["main"]
    repo.tags["next-1"] = repo.commit("next", "n", {}).oid
    assert repository.last_published("main") == commit_called(repo, "a")
    assert repository.last_published("next") == commit_called(repo, "n")
    assert repository.last_published("not-made-yet") == commit_called(repo, "a")


def test_a_repository_that_is_not_there(hub: LocalHub, repository: Repository) -> None:
    assert repository.found() is None
    history(hub, "a")
    found = repository.found()
    assert found is not None
    assert found.private
