"""A model's repository on the Hub, as far as publishing needs it; every request is retried and explained."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo
from huggingface_hub.errors import RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from titanflow.errors import HubError
from titanflow.hub.bundle import Bundle, Entry
from titanflow.hub.retry import Caller

log = logging.getLogger(__name__)

KEPT = frozenset({".gitattributes"})
"""Files that the Hub puts into a new repository itself."""

STALE_PARENT = frozenset({412})
Tree = Mapping[str, RepoFile]


@dataclass(frozen=True)
class Difference:
    """What must change for a revision to hold exactly a bundle."""

    added: tuple[str, ...]
    deleted: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.deleted)

    def __str__(self) -> str:
        return ", ".join([*self.added, *(f"{name} (not in the export)" for name in self.deleted)])


def difference(bundle: Bundle, tree: Tree) -> Difference:
    """Compares a bundle with a revision's files by hash; nothing is downloaded."""
    added = tuple(name for name, entry in bundle.items() if name not in tree or not same(entry, tree[name]))
    return Difference(added, tuple(name for name in tree if name not in bundle and name not in KEPT))


def same(entry: Entry, remote: RepoFile) -> bool:
    """Whether the Hub holds the same bytes: large files are known by SHA-256, others by git's own hash."""
    return remote.lfs.sha256 == entry.sha256 if remote.lfs else remote.blob_id == entry.blob_sha1


@dataclass(frozen=True)
class Repository:
    """One model repository; the methods raise HubError with what to do about it."""

    api: HfApi
    repo_id: str
    call: Caller

    def create(self, private: bool) -> None:
        """Makes the repository unless it exists.

        Raises:
            HubError: also where it exists, is public, and was to be private.
        """
        self.call(
            f"create {self.repo_id}",
            lambda: self.api.create_repo(self.repo_id, private=private, exist_ok=True),
        )
        if private and self.info(None).private is False:
            raise HubError(
                f"{self.repo_id} is public and the config says `private: true`: set `private: false` to publish "
                "there, or choose another `repo_id`."
            )

    def info(self, revision: str | None) -> ModelInfo:
        """The Hub's description of a revision."""
        return self.call(f"read {self.repo_id}", lambda: self.api.model_info(self.repo_id, revision=revision))

    def commit_of(self, revision: str) -> str:
        """The commit that a branch or tag points at."""
        return self.info(revision).sha or ""

    def tree(self, revision: str) -> dict[str, RepoFile]:
        """Path → file, with the Hub's hashes, of everything at a revision."""

        def listing() -> dict[str, RepoFile]:
            entries = self.api.list_repo_tree(self.repo_id, revision=revision, recursive=True)
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

        return self.call(f"list the files of {self.repo_id} at {revision}", listing)

    def has_tag(self, tag: str) -> bool:
        """Whether the tag exists."""
        refs = self.call(f"list the tags of {self.repo_id}", lambda: self.api.list_repo_refs(self.repo_id))
        return any(ref.name == tag for ref in refs.tags)

    def ensure_branch(self, branch: str) -> None:
        """Makes the branch, from the default one, unless it exists."""

        def ensure() -> None:
            try:
                self.api.model_info(self.repo_id, revision=branch)
            except RevisionNotFoundError:
                self.api.create_branch(self.repo_id, branch=branch, exist_ok=True)

        self.call(f"make the branch {branch} of {self.repo_id}", ensure)

    def commit(self, bundle: Bundle, branch: str, message: str) -> str:
        """Brings a branch to exactly the bundle in at most one commit; returns the commit that holds it.

        Each attempt starts from the branch as it is then. So an attempt whose answer was lost is found done by
        the next, and one that met a newer head (412) is planned again on top of it.
        """

        def attempt() -> str:
            head = self.api.model_info(self.repo_id, revision=branch).sha or ""
            changes = difference(bundle, self.tree(head))
            if not changes:
                log.info("%s holds these files at %s", self.repo_id, head)
                return head
            log.info("committing to %s: %d files, %s", self.repo_id, len(changes.added), changes)
            adds = [addition(name, bundle[name]) for name in changes.added]
            deletes = [CommitOperationDelete(name, is_folder=False) for name in changes.deleted]
            return self.api.create_commit(
                self.repo_id, [*adds, *deletes], commit_message=message, revision=branch, parent_commit=head
            ).oid

        return self.call(f"commit to {self.repo_id}", attempt, also=STALE_PARENT)

    def create_tag(self, tag: str, commit: str) -> None:
        """Puts a tag on a commit, unless it is there already, as after a lost answer.

        Raises:
            HubError: also where the tag points at another commit.
        """

        def attempt() -> None:
            refs = self.api.list_repo_refs(self.repo_id)
            if not any(ref.name == tag for ref in refs.tags):
                self.api.create_tag(self.repo_id, tag=tag, revision=commit)

        self.call(f"tag {self.repo_id} as {tag}", attempt)
        found = self.commit_of(tag)
        if found != commit:
            raise HubError(f"The tag {tag} of {self.repo_id} points at {found}, not at {commit}: choose another `tag`.")


def addition(name: str, entry: Entry) -> CommitOperationAdd:
    """The client's operation for one file; new for each attempt, as the client writes into it."""
    source = entry.source if isinstance(entry.source, bytes) else str(entry.source)
    return CommitOperationAdd(path_in_repo=name, path_or_fileobj=source)
