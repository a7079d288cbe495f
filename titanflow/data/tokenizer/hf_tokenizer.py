"""Downloads a tokenizer's files from the Hub, at one commit, into the Hub's own cache."""

from __future__ import annotations

from pathlib import Path

from titanflow.architectures.hf_snapshot import file_names, snapshot
from titanflow.common.errors import ConfigError, Problem
from titanflow.data.tokenizer.tokenizer import CONFIG_FILE, GIVEN_FILES, TOKENIZER_FILE


def download_tokenizer(repo_id: str, revision: str | None = None) -> Path:
    """Downloads a repository's tokenizer into the Hub's cache; returns its snapshot's folder, named by the commit.

    If the Hub can't be reached, the cached files are used.

    Raises:
        ConfigError: the repository can't be downloaded, or has no fast tokenizer.
    """
    folder = snapshot(repo_id, revision, GIVEN_FILES)
    missing = [name for name in (TOKENIZER_FILE, CONFIG_FILE) if not (folder / name).is_file()]
    if not missing:
        return folder
    wanted = f"a repository with {TOKENIZER_FILE} and {CONFIG_FILE}"
    if not file_names(repo_id, folder.name):
        lacks = f"the cache holds {repo_id} without {' and '.join(missing)}, and the Hub can't be asked"
        raise ConfigError(Problem(lacks, expected=wanted))
    hint = f"convert it with transformers: AutoTokenizer.from_pretrained({repo_id!r}).save_pretrained(folder)"
    raise ConfigError(Problem(f"{repo_id} has no {' and no '.join(missing)}", expected=wanted, hint=hint))
