"""Publishes a bundle to the Hub: one commit, checked, and a tag.

``upload_folder`` is not used: with Xet it may make several commits of a large folder. The tag is the mark of
"published": it is looked at before anything is written, and set after everything was read back.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from titanflow.errors import HubError
from titanflow.hub.bundle import Bundle
from titanflow.hub.repository import Repository, difference

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pushed:
    """Where a bundle is on the Hub; ``new`` is False where it was there already."""

    commit: str
    tag: str
    new: bool


def push(bundle: Bundle, repository: Repository, *, tag: str, branch: str, message: str, private: bool) -> Pushed:
    """Makes ``tag`` name a revision that holds exactly the bundle.

    Can be repeated: the same bundle under the same tag changes nothing, and a push that was interrupted goes on.

    Raises:
        HubError: the Hub refuses, can't be reached, or has another content under this tag.
    """
    repository.create(private)
    if repository.has_tag(tag):
        commit = tagged_commit(bundle, repository, tag)
        log.info("%s has these files under the tag %s", repository.repo_id, tag)
        return Pushed(commit, tag, new=False)
    repository.ensure_branch(branch)
    commit = repository.commit(bundle, branch, message)
    verify(bundle, repository, commit)
    repository.create_tag(tag, commit)
    log.info("published %s, commit %s, tag %s", repository.repo_id, commit, tag)
    return Pushed(commit, tag, new=True)


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
    """Reads a commit back and compares every hash.

    Raises:
        HubError: names the files that arrived otherwise than they were sent; the commit is left untagged.
    """
    changes = difference(bundle, repository.tree(commit))
    if changes:
        raise HubError(
            f"The commit {commit} of {repository.repo_id} doesn't hold what was sent: {changes}. It was not "
            "tagged. Run this stage again; if this stays so, the export changes while it is pushed."
        )
