"""Publishes a bundle to the Hub: one commit, read back and checked, and a tag.

``upload_folder`` is not used: with Xet it may make several commits of a large folder. The tag is the mark of
"published": it is looked at before anything is written, and set after everything was downloaded again and checked.
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
    """Where a bundle is on the Hub; ``new`` is False where it was there already.

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

    Can be repeated: the same bundle under the same tag changes nothing, and a push that was interrupted goes on.

    Args:
        bundle: what is published.
        repository: where.
        tag: the mark of "published".
        branch: the branch that is committed to.
        message: the commit's title.
        private: whether a new repository is private, and an old one has to be.
        scratch: a folder that is made, and removed, for what is downloaded again.
        ask: may hold the push back, before anything is written.

    Raises:
        HubError: the Hub refuses, can't be reached, has another content under this tag, or gives back other bytes
            than it was sent.
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
    """Makes the repository where there is none yet.

    Raises:
        HubError: it is public and has to be private, or the names of branch and tag are in use there.
    """
    found = repository.found()
    if found is not None:
        repository.refuse_public(private, found)
        repository.refuse_names(tag, branch)
        return
    ask(None)
    repository.create(private)


def tagged_commit(bundle: Bundle, repository: Repository, tag: str) -> str:
    """The commit of a tag that exists.

    Raises:
        HubError: it holds other files than the bundle.
    """
    changes = difference(bundle, repository.tree(tag))
    if changes:
        raise HubError(
            f"The tag {tag} of {repository.repo_id} exists and holds something else: {changes}. Nothing was "
            "written. Set `tag` to a new name; a tag that was published stays what it is."
        )
    return repository.commit_of(tag)


def verify(bundle: Bundle, repository: Repository, commit: str) -> None:
    """Compares every hash that the Hub tells of a commit, before anything is downloaded.

    Raises:
        HubError: names the files that arrived otherwise than they were sent; the commit is left untagged.
    """
    changes = difference(bundle, repository.tree(commit))
    if changes:
        raise HubError(
            f"The commit {commit} of {repository.repo_id} doesn't hold what was sent: {changes}. It was not "
            "tagged. Run this stage again; if this stays so, the export changes while it is pushed."
        )
