"""Publishes a bundle to the Hub: one commit, read back and checked, and a tag; or a pull request, for a review.

``upload_folder`` is not used: with Xet it may make several commits of a large folder. The tag marks a commit as
published. It is looked at before anything is written, and set after everything was downloaded again and checked.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from functools import cache

from titanflow.common.errors import HubError
from titanflow.publish.bundle import Difference, difference
from titanflow.publish.continuation import COMPUTES_OTHERWISE, wrong_continuation
from titanflow.publish.hub.repository import DEFAULT_BRANCH, Release, Repository

log = logging.getLogger(__name__)

NOT_TAGGED = "It was not tagged, so it doesn't count as published."


@dataclass(frozen=True)
class Pushed:
    """Where a bundle is on the Hub; ``new`` is False if it was there already.

    ``pull_request`` is the URL of one that waits for a review; then there is no tag.
    """

    commit: str
    tag: str
    new: bool
    pull_request: str = ""


def push(release: Release, repository: Repository) -> Pushed:
    """Makes the release's tag name a revision that holds exactly its bundle.

    Can be repeated: the same bundle under the same tag changes nothing, and an interrupted push goes on.
    """
    release = replace(release, ask=cache(release.ask))
    prepare(release, repository)
    if release.tag in repository.tags():
        commit = tagged_commit(release, repository)
        log.info("%s has these files under the tag %s", repository.repo_id, release.tag)
        return Pushed(commit, release.tag, new=False)
    repository.ensure_branch(release.branch)
    commit = repository.commit(release)
    verify(release, repository, commit)
    repository.create_tag(release.tag, commit)
    log.info("published %s, commit %s, tag %s", repository.repo_id, commit, release.tag)
    return Pushed(commit, release.tag, new=True)


def open_pull_request(release: Release, repository: Repository) -> Pushed:
    """Opens a pull request that brings the release's branch to exactly its bundle; nothing is tagged.

    Can be repeated: an open pull request with the same content is found again. Once it is merged, a push finds the
    bundle on the branch, commits nothing and sets the tag.
    """
    release = replace(release, ask=cache(release.ask))
    prepare(release, repository)
    repository.ensure_branch(release.branch)
    commit, url = repository.propose(release)
    verify(release, repository, commit)
    if url:
        log.info("%s waits for a review", url)
    return Pushed(commit, "", bool(url), url)


def preview(release: Release, repository: Repository) -> Difference:
    """What a push, or a pull request if there is no tag, would change: everything is checked, nothing is written."""
    found = repository.found()
    if found is None:
        release.ask(None)
        log.info("would create the %s repository %s", "private" if release.private else "public", repository.repo_id)
        changes = Difference(tuple(release.bundle), ())
    else:
        repository.refuse_public(release.private, found)
        repository.refuse_names(release.tag, release.branch)
        if release.tag and release.tag in repository.tags():
            tagged_commit(release, repository)
            changes = Difference((), ())
        else:
            release.ask(repository.last_published(release.branch))
            base = release.branch if repository.has_branch(release.branch) else DEFAULT_BRANCH
            changes = difference(release.bundle, repository.tree(base))
    changes.log(release.bundle, log)
    return changes


def prepare(release: Release, repository: Repository) -> None:
    """Makes the repository, or checks that an existing one is as private as asked and has room for the names."""
    found = repository.found()
    if found is not None:
        repository.refuse_public(release.private, found)
        repository.refuse_names(release.tag, release.branch)
        return
    release.ask(None)
    repository.create(release.private)


def tagged_commit(release: Release, repository: Repository) -> str:
    """The commit of an existing tag; raises a HubError if it doesn't hold exactly the bundle."""
    if changes := difference(release.bundle, repository.tree(release.tag)):
        raise HubError(
            f"The tag {release.tag} of {repository.repo_id} exists and holds something else: {changes}. Nothing was "
            "written. Set `tag` to a new name: a published tag never changes."
        )
    return repository.commit_of(release.tag)


def verify(release: Release, repository: Repository, commit: str) -> None:
    """Compares every hash that the Hub gives for a commit, then downloads the commit again, as any user would.

    The Hub's own list of hashes isn't enough: it says what a storage should hold, not what comes out of it.
    """
    if changes := difference(release.bundle, repository.tree(commit)):
        raise HubError(
            f"The commit {commit} of {repository.repo_id} doesn't hold what was sent: {changes}. It was not "
            "tagged. Run this stage again; if this stays so, the export changes while it is pushed."
        )
    shutil.rmtree(release.scratch, ignore_errors=True)
    try:
        read_back(release, repository, commit)
    finally:
        shutil.rmtree(release.scratch, ignore_errors=True)
    log.info("downloaded %s at %s again: the same %d files", repository.repo_id, commit, len(release.bundle))


def read_back(release: Release, repository: Repository, commit: str) -> None:
    """Checks that the Hub hands out the same bytes for a commit, and that their model generates the same."""
    folder = release.scratch
    repository.download(commit, release.bundle, folder)
    if wrong := [name for name, entry in release.bundle.items() if not entry.is_at(folder / name)]:
        raise HubError(
            f"The commit {commit} of {repository.repo_id} comes back with other bytes than were sent: "
            f"{', '.join(wrong)}. {NOT_TAGGED} Run this stage again; if this stays so, the Hub has lost what it was "
            "sent."
        )
    # The client's own notes aren't part of the model.
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    if said := wrong_continuation(folder):
        raise HubError(
            f"The commit {commit} of {repository.repo_id} fails its verification. {NOT_TAGGED} "
            f"{COMPUTES_OTHERWISE}\n{said}"
        )
