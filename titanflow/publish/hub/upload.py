"""Sends a bundle's files ahead of the commit that names them, with a line in the log for each large one."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from titanflow.publish.bundle import CARD, Bundle, Entry
from titanflow.publish.difference import Difference

log = logging.getLogger(__name__)

LARGE = 10_000_000
"""From this many bytes on, a file is uploaded by itself. Smaller ones go with the commit, or in a moment."""


def upload(
    api: HfApi, repo_id: str, bundle: Bundle, changes: Difference, revision: str, *, create_pr: bool = False
) -> Sequence[CommitOperationAdd | CommitOperationDelete]:
    """Uploads the large files among the changes; returns all of them as a commit's operations.

    A file that the Hub already holds, as after a push that was cut off, isn't sent again. The log gets lines of its
    own, as the client's progress bars are of no use there.
    """
    adds = [addition(name, bundle[name]) for name in changes.added]
    if CARD in changes.added:
        check_card(api, bundle[CARD])
    large = [add for add in adds if bundle[add.path_in_repo].size >= LARGE]
    for number, add in enumerate(large, 1):
        megabytes, started = bundle[add.path_in_repo].size / 1e6, time.perf_counter()
        log.info("uploading %s, %.1f MB (%d of %d)", add.path_in_repo, megabytes, number, len(large))
        api.preupload_lfs_files(repo_id, [add], revision=revision, create_pr=create_pr, free_memory=False)
        seconds = time.perf_counter() - started
        log.info("uploaded %s in %.1f s, %.1f MB/s", add.path_in_repo, seconds, megabytes / seconds)
    return [*adds, *(CommitOperationDelete(name, is_folder=False) for name in changes.deleted)]


def check_card(api: HfApi, card: Entry) -> None:
    """Asks the Hub about the card's front matter; the client would do so only after the large files are sent."""
    text = card.source if isinstance(card.source, bytes) else card.source.read_bytes()
    response = get_session().post(
        f"{api.endpoint}/api/validate-yaml",
        json={"content": text.decode(), "repoType": "model"},
        headers=build_hf_headers(token=api.token, library_name="titanflow"),
    )
    if response.status_code == 400:
        errors = [str(error.get("message")) for error in response.json().get("errors", [])]
        raise ValueError(f"the Hub doesn't take the front matter of {CARD}: {'; '.join(errors)}")
    hf_raise_for_status(response)


def addition(name: str, entry: Entry) -> CommitOperationAdd:
    """The client's operation for one file; new for each attempt, as the client writes into it."""
    source = entry.source if isinstance(entry.source, bytes) else str(entry.source)
    return CommitOperationAdd(path_in_repo=name, path_or_fileobj=source)
