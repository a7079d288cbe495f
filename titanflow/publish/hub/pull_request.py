"""Proposes a bundle to a repository for review, in place of committing it."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from titanflow.publish.bundle import Bundle
from titanflow.publish.hub.push import Pushed, prepare, verify
from titanflow.publish.hub.read_back import read_back
from titanflow.publish.hub.repository import Ask, Repository, ask_nothing

log = logging.getLogger(__name__)


def open_pull_request(
    bundle: Bundle,
    repository: Repository,
    *,
    branch: str,
    message: str,
    private: bool,
    scratch: Path,
    ask: Ask = ask_nothing,
) -> Pushed:
    """Opens a pull request that brings a branch to exactly the bundle; nothing is tagged.

    Can be repeated: an open pull request with the same content is found again. Once it is merged, a push finds the
    bundle on the branch, commits nothing and sets the tag.
    """
    ask = cache(ask)
    prepare(repository, private, ask, branch)
    repository.ensure_branch(branch)
    commit, url = repository.propose(bundle, branch, message, ask)
    verify(bundle, repository, commit)
    read_back(bundle, repository, commit, scratch)
    if url:
        log.info("%s waits for a review", url)
    return Pushed(commit, "", bool(url), url)
