"""The preview of a push, which writes nothing."""

from __future__ import annotations

import logging

from titanflow.publish.bundle import Bundle
from titanflow.publish.difference import Difference, difference
from titanflow.publish.hub.push import tagged_commit
from titanflow.publish.hub.repository import DEFAULT_BRANCH, Ask, Repository, ask_nothing

log = logging.getLogger(__name__)


def preview(
    bundle: Bundle, repository: Repository, *, tag: str, branch: str, private: bool, ask: Ask = ask_nothing
) -> Difference:
    """What a push, or a pull request if ``tag`` is empty, would change: everything is checked, nothing is written."""
    found = repository.found()
    if found is None:
        ask(None)
        log.info("would create the %s repository %s", "private" if private else "public", repository.repo_id)
        changes = Difference(tuple(bundle), ())
    else:
        repository.refuse_public(private, found)
        repository.refuse_names(tag, branch)
        if tag and tag in repository.tags():
            tagged_commit(bundle, repository, tag)
            changes = Difference((), ())
        else:
            ask(repository.last_published(branch))
            base = branch if repository.has_branch(branch) else DEFAULT_BRANCH
            changes = difference(bundle, repository.tree(base))
    changes.log(bundle, log)
    return changes
