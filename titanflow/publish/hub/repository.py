"""A model's repository on the Hub, as far as publishing needs it; every request is retried and explained."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    GitCommitInfo,
    GitRefs,
    HfApi,
    ModelInfo,
    get_session,
)
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from titanflow.common.errors import HubError
from titanflow.publish.bundle import CARD, Bundle, Difference, Entry, difference
from titanflow.publish.hub.retry import Caller, status_of

if TYPE_CHECKING:
    from titanflow.publish.bundle import Tree

log = logging.getLogger(__name__)

STALE_PARENT = frozenset({412})
DEFAULT_BRANCH = "main"
LARGE = 10_000_000
"""From this many bytes on, a file is uploaded by itself. Smaller ones go with the commit, or in a moment."""

Ask = Callable[[str | None], None]
"""Called with the last published commit (None: there is none) before anything replaces it; raises to prevent that."""


def ask_nothing(last: str | None) -> None:
    """For a push that nothing holds back."""


@dataclass(frozen=True)
class Release:
    """A bundle on its way to a branch of the Hub.

    Attributes:
        private: makes a new repository private, and demands it of an old one.
        scratch: a folder for the second download, which needs as much room as the model; it is made and removed.
        tag: what marks the commit as published; a pull request has none.
        ask: may hold the release back before anything is written.
    """

    bundle: Bundle
    branch: str
    message: str
    private: bool
    scratch: Path
    tag: str = ""
    ask: Ask = ask_nothing


@dataclass(frozen=True)
class Repository:
    """One model repository; the methods raise HubError with what to do about it."""

    api: HfApi
    repo_id: str
    call: Caller

    def found(self) -> ModelInfo | None:
        """The Hub's description of the repository; None if there is none that this token may see."""

        def look() -> ModelInfo | None:
            try:
                return self.api.model_info(self.repo_id)
            except RepositoryNotFoundError as error:
                # The client calls a refused token (401) by the same name.
                if status_of(error) == 404:
                    return None
                raise

        return self.call(f"read {self.repo_id}", look)

    def create(self, private: bool) -> None:
        self.call(f"create {self.repo_id}", lambda: self.api.create_repo(self.repo_id, private=private, exist_ok=True))
        self.refuse_public(private, self.info(None))

    def refuse_public(self, private: bool, found: ModelInfo) -> None:
        """Checks that what should be private doesn't go where everyone can read it."""
        if private and found.private is False:
            raise HubError(
                f"{self.repo_id} is public and the config says `private: true`: set `private: false` to publish "
                "there, or choose another `repo_id`."
            )

    def info(self, revision: str | None) -> ModelInfo:
        return self.call(f"read {self.repo_id}", lambda: self.api.model_info(self.repo_id, revision=revision))

    def commit_of(self, revision: str) -> str:
        """The commit that a branch, a tag or a pull request's ref points at."""
        return self.info(revision).sha or ""

    def tree(self, revision: str) -> Tree:
        """Path → file, with the Hub's hashes, of everything at a revision."""

        def listing() -> Tree:
            entries = self.api.list_repo_tree(self.repo_id, revision=revision, recursive=True)
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

        return self.call(f"list the files of {self.repo_id} at {revision}", listing)

    def refs(self) -> GitRefs:
        return self.call(f"list the branches and tags of {self.repo_id}", lambda: self.api.list_repo_refs(self.repo_id))

    def tags(self) -> dict[str, str]:
        """Tag → commit."""
        return {ref.name: ref.target_commit for ref in self.refs().tags}

    def has_branch(self, branch: str) -> bool:
        return any(ref.name == branch for ref in self.refs().branches)

    def refuse_names(self, tag: str, branch: str) -> None:
        """Checks that a tag (empty for none) and a branch can exist beside the others.

        A name that stands for both a branch and a tag is looked up as either, and git keeps no `a` beside an `a/b`.
        """
        refs = self.refs()
        branches, tags = [ref.name for ref in refs.branches], [ref.name for ref in refs.tags]
        for key, name, (kind, same), (other, others) in (
            ("tag", tag, ("tag", tags), ("branch", branches)),
            ("revision", branch, ("branch", branches), ("tag", tags)),
        ):
            nested = (f"a {kind} {one}" for one in same if _nested(name, one))
            met = f"a {other} {name}" if name in others else next(nested, "")
            if name and met:
                raise HubError(
                    f"{self.repo_id} has {met}: set `{key}` to another name than {name}. Nothing was written."
                )

    def last_published(self, branch: str) -> str | None:
        """The newest commit of a branch that a tag points at; None if there is none.

        A head without a tag is a push that was cut off, or somebody's own commit: neither was published. A branch that
        doesn't exist yet will start from the default one.
        """
        tagged = set(self.tags().values())
        if not tagged:
            return None

        def listing() -> list[GitCommitInfo]:
            try:
                return self.api.list_repo_commits(self.repo_id, revision=branch)
            except RevisionNotFoundError:
                return self.api.list_repo_commits(self.repo_id, revision=DEFAULT_BRANCH)

        commits = self.call(f"list the commits of {self.repo_id}", listing)
        return next((commit.commit_id for commit in commits if commit.commit_id in tagged), None)

    def download(self, commit: str, names: Iterable[str], folder: Path) -> None:
        """Brings the named files of a commit into a folder; names that the commit lacks are left out."""
        wanted = list(names)
        self.call(
            f"download {self.repo_id} at {commit}",
            lambda: self.api.snapshot_download(self.repo_id, revision=commit, local_dir=folder, allow_patterns=wanted),
        )

    def ensure_branch(self, branch: str) -> None:
        """Makes the branch from the default one, unless it exists."""

        def ensure() -> None:
            try:
                self.api.model_info(self.repo_id, revision=branch)
            except RevisionNotFoundError:
                self.api.create_branch(self.repo_id, branch=branch, exist_ok=True)

        self.call(f"make the branch {branch} of {self.repo_id}", ensure)

    def commit(self, release: Release) -> str:
        """Brings the branch to exactly the bundle in at most one commit; returns the commit that holds it.

        Each attempt reads the branch and what is published anew. So if an answer was lost, the next attempt finds the
        work done; if the head moved (412), the next attempt plans on top of it. ``ask`` isn't called if the very same
        files are published already.
        """

        def attempt() -> str:
            head = self.api.model_info(self.repo_id, revision=release.branch).sha or ""
            changes, last = difference(release.bundle, self.tree(head)), self.last_published(release.branch)
            if changes or last != head:
                release.ask(last)
            if not changes:
                log.info("%s holds these files at %s", self.repo_id, head)
                return head
            log.info("committing to %s: %d files, %s", self.repo_id, len(changes.added), changes)
            return self._make(release, changes, head).oid

        return self.call(f"commit to {self.repo_id}", attempt, also=STALE_PARENT)

    def propose(self, release: Release) -> tuple[str, str]:
        """Opens a pull request that brings the branch to exactly the bundle; returns its commit and its URL.

        An open one with the same content is used instead of a second. If the branch itself holds the bundle, there is
        nothing to propose: its head is returned, and no URL.
        """

        def attempt() -> tuple[str, str]:
            head = self.api.model_info(self.repo_id, revision=release.branch).sha or ""
            changes = difference(release.bundle, self.tree(head))
            if not changes:
                log.info("%s holds these files at %s", self.repo_id, head)
                return head, ""
            release.ask(self.last_published(release.branch))
            opened = self.api.get_repo_discussions(
                self.repo_id, discussion_type="pull_request", discussion_status="open"
            )
            for discussion in opened:
                ref = discussion.git_reference or ""
                if not difference(release.bundle, self.tree(ref)):
                    return self.commit_of(ref), discussion.url
            log.info("opening a pull request on %s: %d files, %s", self.repo_id, len(changes.added), changes)
            made = self._make(release, changes, head, create_pr=True)
            return made.oid, made.pr_url or ""

        return self.call(f"open a pull request on {self.repo_id}", attempt, also=STALE_PARENT)

    def _make(self, release: Release, changes: Difference, head: str, *, create_pr: bool = False) -> CommitInfo:
        """One commit of the changes on top of ``head``, or a pull request with it; large files are sent ahead.

        A file that the Hub already holds, as after a push that was cut off, isn't sent again. The log gets lines of its
        own, as the client's progress bars are of no use there.
        """
        bundle = release.bundle
        adds = [addition(name, bundle[name]) for name in changes.added]
        if CARD in changes.added:
            check_card(self.api, bundle[CARD])
        large = [add for add in adds if bundle[add.path_in_repo].size >= LARGE]
        where: dict[str, Any] = {"revision": release.branch, "create_pr": create_pr}
        for number, add in enumerate(large, 1):
            megabytes, started = bundle[add.path_in_repo].size / 1e6, time.perf_counter()
            log.info("uploading %s, %.1f MB (%d of %d)", add.path_in_repo, megabytes, number, len(large))
            self.api.preupload_lfs_files(self.repo_id, [add], free_memory=False, **where)
            seconds = time.perf_counter() - started
            log.info("uploaded %s in %.1f s, %.1f MB/s", add.path_in_repo, seconds, megabytes / seconds)
        deletes = (CommitOperationDelete(name, is_folder=False) for name in changes.deleted)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [*adds, *deletes]
        return self.api.create_commit(
            self.repo_id, operations, commit_message=release.message, parent_commit=head, **where
        )

    def create_tag(self, tag: str, commit: str) -> None:
        """Puts a tag on a commit, unless it is there already, as after a lost answer."""

        def attempt() -> None:
            refs = self.api.list_repo_refs(self.repo_id)
            if not any(ref.name == tag for ref in refs.tags):
                self.api.create_tag(self.repo_id, tag=tag, revision=commit)

        self.call(f"tag {self.repo_id} as {tag}", attempt)
        found = self.commit_of(tag)
        if found != commit:
            raise HubError(f"The tag {tag} of {self.repo_id} points at {found}, not at {commit}: choose another `tag`.")


def _nested(name: str, other: str) -> bool:
    return name.startswith(f"{other}/") or other.startswith(f"{name}/")


def check_card(api: HfApi, card: Entry) -> None:
    """Asks the Hub about the card's front matter; the client would do so only after the large files are sent."""
    text = card.read()
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
