"""Scores of finished tasks, kept until the stage has finished, so that a rerun computes only what is missing.

A file's name is the digest of everything that its scores depend on: the model's files, how it is loaded, the task, its
items and the settings. If one of these changes, the task is scored again.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from titan.evaluate.lm.backends import Loading
from titan.evaluate.lm.cache import PACKAGES
from titan.evaluate.lm.model import Scored
from titan.evaluate.scores import as_json
from titanflow.common.digests import digest, file_digest
from titanflow.common.errors import DataError
from titanflow.common.files import write_text_atomically
from titanflow.config.keys.after_training import Evaluate
from titanflow.evals.asked_tasks import AskedTasks
from titanflow.evals.task_checks import DATA, data_files
from titanflow.files.own_files import read_mapping

KEPT_FOLDER = "scored"
"""Lies beside the stages' folders: a stage that runs again has its own folder moved aside."""
ELSEWHERE = {
    *("tasks", "include_path", "data", "models", "means", "remote_code"),
    *("examples", "wandb", "trackio", "mlflow", "log_samples", "launcher", "cache_requests"),
}
"""Settings that change no score, or count by the contents of the files that they name."""
VERSION = 3
"""Increase it when the format or content of kept scores changes."""

logger = logging.getLogger("titanflow.evaluate")


@dataclass(frozen=True)
class KeptScores:
    """The scores so far of one stage; ``data`` has the prepared items, ``dropped`` by task the items not scored."""

    folder: Path
    asked: AskedTasks
    data: Path | None
    settings: Evaluate
    dropped: Mapping[str, list[int]] = field(default_factory=dict)

    def of(self, task: str, loading: Loading) -> Scored | None:
        """The scores that an attempt before this one kept; None if there are none, or others."""
        scored = self._read(task, loading)
        if scored is not None:
            logger.info("%s: %s was scored before this start", loading.folder, task)
        return scored

    def _read(self, task: str, loading: Loading) -> Scored | None:
        try:
            kept = read_mapping(self._file(task, loading))
            answers = {name: {int(item): one for item, one in items.items()} for name, items in kept["answers"].items()}
            return Scored(**{**kept, "answers": answers})
        except (DataError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def keep(self, task: str, loading: Loading, scored: Scored) -> Scored:
        """Writes scores and returns them as :meth:`of` will, so that a rerun has the same values."""
        write_text_atomically(self._file(task, loading), as_json(asdict(scored)))
        return self._read(task, loading) or scored

    def forget(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            # Another evaluation may keep its own there.
            self.folder.parent.rmdir()

    def _file(self, task: str, loading: Loading) -> Path:
        model = [loading.digests, loading.backend, loading.dtype, loading.trained_here]
        settings = {key: value for key, value in asdict(self.settings).items() if key not in ELSEWHERE}
        return self.folder / f"{digest([model, task, self._content(task), settings, [VERSION, *self._versions]])}.json"

    @cached_property
    def _versions(self) -> list[str]:
        """Asked once: each question is a search through all that is installed."""
        return [version(package) for package in PACKAGES]

    def _content(self, task: str) -> list[Any]:
        single = self.asked.tasks[task]
        code = sorted(self.asked.folder.rglob("*.py")) if self.asked.folder else []
        items = [path for one in single if not one.of_library for path in self._items(one.config)]
        return [
            [(one.name, one.config) for one in single],
            self.asked.groups,
            [self.dropped.get(one.name) for one in single],
            [file_digest(path) for path in (*code, *items)],
        ]

    def _items(self, config: Mapping[str, Any]) -> list[Path]:
        data = glob.escape(str(self.data)) if self.data else ""
        kwargs = config.get("dataset_kwargs")
        folders = [config.get("dataset_path"), kwargs.get("data_dir") if isinstance(kwargs, Mapping) else None]
        # Path.glob takes no absolute patterns.
        patterns = [*data_files(config), *(f"{folder}/**" for folder in folders if folder)]
        found = (sorted(glob.glob(name.replace(DATA, data), recursive=True)) for name in patterns)  # noqa: PTH207
        return [path for paths in found for path in map(Path, paths) if path.is_file()]
