"""The publish stage's settings, read and checked without a Hub, as a plan needs them long before the stage runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.hub_names import REF_EXPECTED, REPO_ID_EXPECTED, default_tag, is_ref, is_repo_id
from titanflow.config.files.schema import check, dataclass_schema
from titanflow.config.keys.after_training import Chosen, Gate, Publish
from titanflow.files.yaml_source import Leaf, Tree
from titanflow.publish.card.metadata import card_problems
from titanflow.publish.folder import folder_problems
from titanflow.publish.private import private_problems
from titanflow.publish.signing.key import key_problems
from titanflow.runs.contract import StageRun


def read_settings(run: StageRun) -> Publish:
    """The stage's settings, checked without asking a Hub; a plan can call this long before the stage runs.

    Raises:
        ConfigError: every problem that was found.
    """
    if problems := check(as_tree(run.config, run.origins), dataclass_schema(Publish), f"{run.stage}."):
        raise ConfigError(problems)
    gate, chosen = Gate(**run.config.get("gate") or {}), Chosen(**run.config.get("checkpoint") or {})
    settings = Publish(**run.config | {"gate": gate, "checkpoint": chosen})
    # A secret comes first and alone: the other problems quote what they found.
    problems = private_problems(run) or [*check_names(settings, run), *card_problems(settings, run)]
    if settings.target == "folder":
        problems += folder_problems(settings.folder, run)
    problems += key_problems(settings, run)
    if problems:
        raise ConfigError(problems)
    return settings


def as_tree(config: Mapping[str, Any], origins: Mapping[str, str], above: str = "") -> Tree:
    return {
        key: as_tree(value, origins, f"{above}{key}.")
        if isinstance(value, dict)
        else Leaf(value, origins.get(f"{above}{key}", ""))
        for key, value in config.items()
    }


def check_names(settings: Publish, run: StageRun) -> list[Problem]:
    problems = []

    def refuse(message: str, key: str, expected: str, hint: str = "") -> None:
        problems.append(Problem(message, f"{run.stage}.{key}", run.origins.get(key, ""), expected, hint))

    repo_id, tag, branch = settings.repo_id, tag_of(settings, run.experiment, run.run), settings.revision
    if settings.target == "hub" and not repo_id:
        refuse("target: hub needs a repository", "repo_id", "owner/name", "set repo_id, or target: folder")
    elif repo_id and not is_repo_id(repo_id):
        refuse(f"{repo_id!r} is no repository's name", "repo_id", REPO_ID_EXPECTED)
    if settings.target == "hub":
        if not is_ref(tag):
            hint = "" if settings.tag else "the run's name is used as the tag: set tag, or give the run another name"
            refuse(f"{tag!r} can't be a tag's name", "tag", REF_EXPECTED, hint)
        if not is_ref(branch):
            refuse(f"{branch!r} can't be a branch's name", "revision", REF_EXPECTED)
        if tag == branch:
            refuse(f"{tag!r} is the branch's name, too", "tag", "another name than revision")
    elif settings.pull_request:
        refuse("a folder has no pull requests", "pull_request", "false, or target: hub")
    return problems


def tag_of(settings: Publish, experiment: str, run: str) -> str:
    return settings.tag or default_tag(experiment, run, settings.revision)


def published_name(settings: Publish, experiment: str) -> str:
    """The name on the card, in the signature and in files' names: the repository's, or experiment and stage."""
    return settings.repo_id.split("/")[-1] if settings.repo_id else f"{experiment}-{settings.model}"


def unpublishable(
    evaluation: str, limit: float | None, backend: str, part: str = "", origins: Mapping[str, str] | None = None
) -> Problem | None:
    """Why scores of this kind don't allow a model to be published; None if they do.

    Args:
        evaluation: the name of the stage that made them.
        limit: items a task.
        backend: what computed the scores.
        part: the part of the held-out rows that the items belong to.
        origins: where the settings are written.
    """
    if limit is not None:
        key, found, expected = "limit", f"only a part of each task is evaluated (limit {limit:g})", "no limit"
    elif backend == "native":
        key, found = "backend", "the checkpoint is scored, but its export would be published"
        expected = "hf or vllm"
    elif part == "dev":
        key, expected = "data.part", "test"
        found = "the items are of the dev part, which is for choosing between models"
    else:
        return None
    hint = "evaluate without it, or set dry_run: true of the publication to see what would be published"
    return Problem(found, f"{evaluation}.{key}", (origins or {}).get(key, ""), expected, hint)
