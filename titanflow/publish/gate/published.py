"""The model that was published last, as the gate and the card of the next one need it."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from titanflow.publish.bundle import LINEAGE, SAMPLES, Bundle, is_exported, same
from titanflow.publish.gate.samples import Samples
from titanflow.runs.results import GateDecision

if TYPE_CHECKING:
    from titanflow.publish.hub.repository import Repository


@dataclass(frozen=True)
class Published:
    """The model that stands where another is about to be published.

    ``name`` is a commit of the Hub, or the run that a folder came from, never a path. ``record`` is its
    ``titanflow.json``. ``is_this`` says whether it has the very files that are about to be published.
    """

    name: str
    is_this: bool = False
    record: Mapping[str, Any] = field(default_factory=dict)
    samples: Samples | None = None

    @property
    def gate(self) -> GateDecision | None:
        try:
            return GateDecision.model_validate(self.record.get("gate"))
        except ValidationError:
            return None

    def as_json(self) -> dict[str, Any]:
        """Its run and scores, in the form of its ``titanflow.json``, for the record of the model that replaces it."""
        run = {key: str(self.record.get(key, "")) for key in ("experiment", "run", "model", "evaluated_as")}
        evaluate = mapping(mapping(self.record.get("stages")).get("evaluate"))
        scores = numbers(mapping(evaluate.get("scores")).get(run["evaluated_as"]))
        versions, n_shot = mapping(evaluate.get("task_versions")), mapping(evaluate.get("n_shot"))
        evaluated = {
            "scores": {run["evaluated_as"]: scores},
            "task_versions": {task: str(versions[task]) for task in scores if task in versions},
            "n_shot": {task: n_shot[task] for task in scores if isinstance(n_shot.get(task), int)},
            "limit": evaluate.get("limit") if isinstance(evaluate.get("limit"), int | float) else None,
        }
        return {"name": self.name, **run, "stages": {"evaluate": evaluated} if scores else {}}


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one: somebody else may have written the file."""
    return value if isinstance(value, dict) else {}


def numbers(scores: Any) -> dict[str, dict[str, float]]:
    """Task → metric → score, finite numbers only."""
    return {
        str(task): {
            str(metric): float(value)
            for metric, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
        for task, values in mapping(scores).items()
        if isinstance(values, dict)
    }


def last_in_folder(folder: Path, exported: Bundle) -> Published | None:
    if not (folder / LINEAGE).is_file():
        return None
    standing = {path.name for path in folder.iterdir() if is_exported(path.name) and path.is_file()}
    is_this = standing == exported.keys() and all(entry.is_at(folder / name) for name, entry in exported.items())
    record, samples = _read(folder)
    name = "/".join(str(record[key]) for key in ("experiment", "run") if record.get(key)) or folder.name
    return Published(name, is_this, record, samples)


def last_on_hub(repository: Repository, branch: str, tag: str, exported: Bundle) -> Published | None:
    """The model under the tag or else the last that the branch published; None if nothing was published.

    A head without a tag is a push that was cut off: nobody was told to use it.
    """
    if repository.found() is None:
        return None
    commit = repository.tags().get(tag) or repository.last_published(branch)
    if commit is None:
        return None
    tree = repository.tree(commit)
    standing = {name for name in tree if is_exported(name)}
    is_this = standing == exported.keys() and all(same(entry, tree[name]) for name, entry in exported.items())
    with tempfile.TemporaryDirectory(prefix="titanflow-") as scratch:
        repository.download(commit, [name for name in (LINEAGE, SAMPLES) if name in tree], Path(scratch))
        record, samples = _read(Path(scratch))
    return Published(commit, is_this, record, samples)


def _read(folder: Path) -> tuple[dict[str, Any], Samples | None]:
    """A model's record and samples; empty or None if there are none that can be read."""
    record, samples = folder / LINEAGE, folder / SAMPLES
    try:
        content = mapping(json.loads(record.read_bytes())) if record.is_file() else {}
    except (ValueError, RecursionError):  # no JSON, or lists within lists without end
        content = {}
    return content, Samples.from_bytes(samples.read_bytes()) if samples.is_file() else None
