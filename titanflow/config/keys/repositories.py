"""The keys that may name a repository of the Hub, each with the key of its revision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titanflow.architectures.hf_snapshot import names_repository
from titanflow.common.hub_names import is_repo_id

if TYPE_CHECKING:
    from titanflow.config.module import Module

REVISIONS = {
    "base": "base_revision",
    "tokenizer.path": "tokenizer.revision",
    "model.hf_assets_path": "model.hf_assets_revision",
    "checkpoint.initial_load_path": "checkpoint.initial_load_revision",
}


def value(module: Module, key: str) -> str:
    """The value of one of these keys; empty where nobody wrote it, or wrote null."""
    return str(module.value(key) or "") if module.is_written(key) else ""


def revision(module: Module, key: str) -> str | None:
    """The revision of the repository that a key names; None for its main branch."""
    return value(module, REVISIONS[key]) or None


def misplaced_revision(key: str, named: str) -> str:
    """A hint about a revision written behind a repository's name; empty where there is none."""
    repo_id, _, behind = named.partition("@")
    return f"the revision has a key of its own: {REVISIONS[key]}: {behind}" if behind and is_repo_id(repo_id) else ""


def idle_revisions(module: Module) -> dict[str, str]:
    """The revision keys without a repository to apply to, with the reason."""
    return {
        key: f"{named} names no repository of the Hub"
        for named, key in REVISIONS.items()
        if not names_repository(value(module, named))
    }
