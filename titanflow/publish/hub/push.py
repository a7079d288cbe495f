"""Publishes a bundle to the Hub: one commit, read back and checked, and a tag.

``upload_folder`` is not used: with Xet it may make several commits of a large folder. The tag marks a commit as
published. It is looked at before anything is written, and set after everything was downloaded again and checked.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from titanflow.common.errors import HubError
from titanflow.publish.bundle import Bundle
from titanflow.publish.difference import difference
from titanflow.publish.hub.read_back import read_back
from titanflow.publish.hub.repository import Ask, Repository, ask_nothing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pushed:
    """Where a bundle is on the Hub; ``new`` is False if it was there already.

    ``pull_request`` is the URL of one that waits for a review; then there is no tag.
    """

    commit: str
    tag: str
    new: bool
    pull_request: str = ""


def push(
    bundle: Bundle,
    repository: Repository,
    *,
    tag: str,
    branch: str,
    message: str,
    private: bool,
    scratch: Path,
    ask: Ask = ask_nothing,
) -> Pushed:
    """Makes ``tag`` name a revision that holds exactly the bundle.

    Can be repeated: the same bundle under the same tag changes nothing, and an interrupted push goes on. ``private``
    makes a new repository private, and demands it of an old one. ``scratch`` is a folder for the second download; it is
    made and removed. ``ask`` may hold the push back before anything is written.
    """
    ask = cache(ask)
    prepare(repository, private, ask, branch, tag)
    if tag in repository.tags():
        commit = tagged_commit(bundle, repository, tag)
        log.info("%s has these files under the tag %s", repository.repo_id, tag)
        return Pushed(commit, tag, new=False)
    repository.ensure_branch(branch)
    commit = repository.commit(bundle, branch, message, ask)
    verify(bundle, repository, commit)
    read_back(bundle, repository, commit, scratch)
    repository.create_tag(tag, commit)
    log.info("published %s, commit %s, tag %s", repository.repo_id, commit, tag)
    return Pushed(commit, tag, new=True)


def prepare(repository: Repository, private: bool, ask: Ask, branch: str, tag: str = "") -> None:
    """Makes the repository, or checks that an existing one is as private as asked and has room for the names."""
    found = repository.found()
    if found is not None:
        repository.refuse_public(private, found)
        repository.refuse_names(tag, branch)
        return
    ask(None)
    repository.create(private)


def tagged_commit(bundle: Bundle, repository: Repository, tag: str) -> str:
    """The commit of an existing tag; raises a HubError if it doesn't hold exactly the bundle."""
    if changes := difference(bundle, repository.tree(tag)):
        raise HubError(
            f"The tag {tag} of {repository.repo_id} exists and holds something else: {changes}. Nothing was "
            "written. Set `tag` to a new name; a tag that was published stays what it is."
        )
    return repository.commit_of(tag)


def verify(bundle: Bundle, repository: Repository, commit: str) -> None:
    """Compares every hash that the Hub gives for a commit, before anything is downloaded."""
    if changes := difference(bundle, repository.tree(commit)):
        raise HubError(
            f"The commit {commit} of {repository.repo_id} doesn't hold what was sent: {changes}. It was not "
            "tagged. Run this stage again; if this stays so, the export changes while it is pushed."
        )
