"""What must change for a place to hold exactly a bundle. Only hashes are compared: nothing is downloaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from titanflow.publish.bundle import Bundle, Entry

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

    Tree = Mapping[str, RepoFile]

KEPT = frozenset({".gitattributes"})
"""Files that the Hub puts into a new repository itself."""


@dataclass(frozen=True)
class Difference:
    """The files to write, new or changed, and the files to delete."""

    added: tuple[str, ...]
    deleted: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.deleted)

    def __str__(self) -> str:
        return ", ".join([*self.added, *(f"{name} (not in the export)" for name in self.deleted)])

    def log(self, bundle: Bundle, log: logging.Logger) -> None:
        for name in self.added:
            log.info("would write %s, %.3f MB", name, bundle[name].size / 1e6)
        for name in self.deleted:
            log.info("would delete %s", name)
        if not self:
            log.info("nothing would change")


def difference(bundle: Bundle, tree: Tree) -> Difference:
    added = tuple(name for name, entry in bundle.items() if name not in tree or not same(entry, tree[name]))
    return Difference(added, tuple(name for name in tree if name not in bundle and name not in KEPT))


def same(entry: Entry, remote: RepoFile) -> bool:
    """Whether the Hub holds the same bytes: it knows large files by SHA-256, others by git's own hash."""
    return remote.lfs.sha256 == entry.sha256 if remote.lfs else remote.blob_id == entry.blob_sha1
