"""Names that a Hub and git accept for a repository, a tag and a branch: checked before anything is sent."""

from __future__ import annotations

import re

LONGEST = 96
REPO_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?/[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
# What git allows in a ref's name, without what a shell or a URL would interpret.
REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./+-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
PULL_REQUEST = re.compile(r"refs/pr/[1-9]\d*")

REPO_ID_EXPECTED = "owner/name of letters, digits, '-', '_' and '.', at most 96 characters"
LONGEST_REF = 200
"""Git stores a ref as a file, whose name with `.lock` has at most 255 bytes; a Hub's URL has more than the ref."""
REF_EXPECTED = f"letters, digits, '.', '_', '-', '+' and '/', as git has it, at most {LONGEST_REF} characters"


def default_tag(experiment: str, run: str, branch: str) -> str:
    """A run's tag if it is given none: its name, or ``<experiment>-<run>`` if the branch has that name."""
    return run if run != branch else f"{experiment}-{run}"


def is_repo_id(name: str) -> bool:
    """Whether this is owner/name as the Hub allows it (huggingface_hub's ``validate_repo_id``)."""
    if not REPO_ID.fullmatch(name) or len(name) > LONGEST or name.endswith(".git"):
        return False
    return "--" not in name and ".." not in name


def is_ref(name: str) -> bool:
    """Whether a tag or branch may have this name: git allows it (``git check-ref-format``), and it is unmistakable."""
    # A name like a commit's hash, or below refs/, would be looked up as one.
    if len(name) > LONGEST_REF or not REF.fullmatch(name) or COMMIT.fullmatch(name) or name == "HEAD" or ".." in name:
        return False
    parts = name.split("/")
    if parts[0] == "refs":
        return False
    return all(part and not part.startswith(".") and not part.endswith((".", ".lock")) for part in parts)


def is_revision(name: str) -> bool:
    """Whether this may name a branch, a tag, a commit or a pull request."""
    return is_ref(name) or any(pattern.fullmatch(name) for pattern in (COMMIT, PULL_REQUEST))
