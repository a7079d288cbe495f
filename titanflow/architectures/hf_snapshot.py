"""Fetches files of a Hub repository: the folder is the snapshot of one commit in the Hub's own cache.

The Hub's client takes its token from the environment, or from what ``hf auth login`` stored.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.hub_names import is_repo_id

WATCHED = ".safetensors"
"""Files large enough for a progress bar."""


def names_repository(name: str | None) -> bool:
    """Whether a config's value names a repository: ``owner/name``, unless there is such a folder."""
    return bool(name and is_repo_id(name)) and not Path(str(name)).exists()


def repository_of(folder: Path) -> str:
    """The repository whose snapshot in the Hub's cache a folder is; empty if it is none."""
    cached = folder.resolve().parent.parent
    if folder.resolve().parent.name != "snapshots" or not cached.name.startswith("models--"):
        return ""
    return "/".join(cached.name.split("--")[1:])


def snapshot(repo_id: str, revision: str | None, names: Iterable[str]) -> Path:
    """Fetches files into the Hub's cache, skipping names that the repository lacks; returns the snapshot's folder.

    The folder's name is the commit. If the Hub can't be reached, the cache's copy is taken.

    Raises:
        ConfigError: there is no such repository or revision, it needs a token, or neither the Hub nor the cache has it.
    """
    from titanflow.common.credentials import redact
    from titanflow.common.hub_endpoint import hub_endpoint, use_plain_transfer

    endpoint = hub_endpoint()
    use_plain_transfer(endpoint)
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    patterns = list(names)
    is_watched = sys.stderr.isatty() and any(name.endswith(WATCHED) for name in patterns)
    (enable_progress_bars if is_watched else disable_progress_bars)()
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns, endpoint=endpoint))
    except Exception as error:  # the client has its own exception for each answer, and others without one
        where = f"{repo_id}{f' at {revision}' if revision else ''} can't be had from {endpoint}"
        expected = f"a model of the Hub as owner/name, or a folder: there is no {repo_id} in {Path.cwd()}"
        message, hint = f"{where}: {redact(_reason(error))}", _way_out(error, f"{endpoint}/{repo_id}")
        raise ConfigError(Problem(message, expected=expected, hint=hint)) from None


def file_names(repo_id: str, revision: str) -> list[str]:
    """The names of a repository's files; none if the Hub can't be asked."""
    from huggingface_hub import HfApi

    from titanflow.common.hub_endpoint import hub_endpoint

    try:
        return list(HfApi(endpoint=hub_endpoint()).list_repo_files(repo_id, revision=revision))
    except Exception:  # without an answer, the cache's files are all that is known
        return []


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return "it is gated, and this token isn't let in"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private"
    if isinstance(error, RevisionNotFoundError):
        return "there is no such revision"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _way_out(error: Exception, page: str) -> str:
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    if isinstance(error, GatedRepoError):
        return f"ask for access on {page}, and set HF_TOKEN to a token of that account"
    if isinstance(error, LocalEntryNotFoundError):
        return "once it was fetched, the cache (HF_HOME) serves without the Hub"
    return "a private or gated model needs HF_TOKEN, and that its owner let you in"
