"""A model's repository on the Hub, as far as publishing needs it; every request is retried and explained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import GitCommitInfo, GitRefs, HfApi, ModelInfo
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from titanflow.common.errors import HubError
from titanflow.publish.bundle import Bundle
from titanflow.publish.difference import difference
from titanflow.publish.hub.retry import Caller, status_of
from titanflow.publish.hub.upload import upload

if TYPE_CHECKING:
    from titanflow.publish.difference import Tree

log = logging.getLogger(__name__)

STALE_PARENT = frozenset({412})
DEFAULT_BRANCH = "main"

Ask = Callable[[str | None], None]
"""Called with the last published commit (None: there is none) before anything replaces it; raises to prevent that."""


def ask_nothing(last: str | None) -> None:
    """For a push that nothing holds back."""


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
        for key, name, kind, same, others in (
            ("tag", tag, "branch", tags, branches),
            ("revision", branch, "tag", branches, tags),
        ):
            met = f"a {kind} {name}" if name in others else next((one for one in same if _nested(name, one)), "")
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

    def commit(self, bundle: Bundle, branch: str, message: str, ask: Ask = ask_nothing) -> str:
        """Brings a branch to exactly the bundle in at most one commit; returns the commit that holds it.

        Each attempt reads the branch and what is published anew. So if an answer was lost, the next attempt finds the
        work done; if the head moved (412), the next attempt plans on top of it. ``ask`` isn't called if the very same
        files are published already.
        """

        def attempt() -> str:
            head = self.api.model_info(self.repo_id, revision=branch).sha or ""
            changes, last = difference(bundle, self.tree(head)), self.last_published(branch)
            if changes or last != head:
                ask(last)
            if not changes:
                log.info("%s holds these files at %s", self.repo_id, head)
                return head
            log.info("committing to %s: %d files, %s", self.repo_id, len(changes.added), changes)
            operations = upload(self.api, self.repo_id, bundle, changes, branch)
            return self.api.create_commit(
                self.repo_id, operations, commit_message=message, revision=branch, parent_commit=head
            ).oid

        return self.call(f"commit to {self.repo_id}", attempt, also=STALE_PARENT)

    def propose(self, bundle: Bundle, branch: str, message: str, ask: Ask = ask_nothing) -> tuple[str, str]:
        """Opens a pull request that brings a branch to exactly the bundle; returns its commit and its URL.

        An open one with the same content is used instead of a second. If the branch itself holds the bundle, there is
        nothing to propose: its head is returned, and no URL.
        """

        def attempt() -> tuple[str, str]:
            head = self.api.model_info(self.repo_id, revision=branch).sha or ""
            changes = difference(bundle, self.tree(head))
            if not changes:
                log.info("%s holds these files at %s", self.repo_id, head)
                return head, ""
            ask(self.last_published(branch))
            opened = self.api.get_repo_discussions(
                self.repo_id, discussion_type="pull_request", discussion_status="open"
            )
            for discussion in opened:
                ref = discussion.git_reference or ""
                if not difference(bundle, self.tree(ref)):
                    return self.commit_of(ref), discussion.url
            log.info("opening a pull request on %s: %d files, %s", self.repo_id, len(changes.added), changes)
            operations = upload(self.api, self.repo_id, bundle, changes, branch, create_pr=True)
            made = self.api.create_commit(
                self.repo_id, operations, commit_message=message, revision=branch, parent_commit=head, create_pr=True
            )
            return made.oid, made.pr_url or ""

        return self.call(f"open a pull request on {self.repo_id}", attempt, also=STALE_PARENT)

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
