"""Downloads a commit again, as any user would, and checks that it is the model that was evaluated."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from titanflow.common.errors import HubError
from titanflow.publish.bundle import Bundle, file_entry
from titanflow.publish.continuation import COMPUTES_OTHERWISE, wrong_continuation
from titanflow.publish.hub.repository import Repository

log = logging.getLogger(__name__)

NOT_TAGGED = "It was not tagged, so it doesn't count as published."


def read_back(bundle: Bundle, repository: Repository, commit: str, scratch: Path) -> None:
    """Checks that the Hub hands out the same bytes for a commit, and that their model generates the same.

    The Hub's own list of hashes isn't enough: it says what a storage should hold, not what comes out of it. ``scratch``
    needs as much room as the model; it is removed again.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        repository.download(commit, bundle, scratch)
        wrong = [name for name, entry in bundle.items() if not arrived(scratch / name, entry.sha256)]
        if wrong:
            raise HubError(
                f"The commit {commit} of {repository.repo_id} comes back with other bytes: {', '.join(wrong)}. "
                f"{NOT_TAGGED} Run this stage again; if this stays so, the Hub has lost what it was sent."
            )
        # The client's own notes aren't part of the model.
        shutil.rmtree(scratch / ".cache", ignore_errors=True)
        if said := wrong_continuation(scratch):
            raise HubError(
                f"The commit {commit} of {repository.repo_id} fails its verification. {NOT_TAGGED} "
                f"{COMPUTES_OTHERWISE}\n{said}"
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    log.info("downloaded %s at %s again: the same %d files", repository.repo_id, commit, len(bundle))


def arrived(path: Path, sha256: str) -> bool:
    return path.is_file() and file_entry(path).sha256 == sha256
