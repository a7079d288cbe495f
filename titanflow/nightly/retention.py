"""Which earlier nights stay on disk, and the removal of the others.

A night is removed whole or not at all: its folder is renamed first, so that a half removed one is no run. Prepared data
is shared by runs and stays.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from titanflow.common.errors import DataError
from titanflow.common.file_lock import held, holder
from titanflow.nightly.planning import as_parent, nights
from titanflow.runs.contract import RESULT_FILE, RUN_FILE, StageRun
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import PublishResult, result_of

REMOVING = ".removing-"


@dataclass
class Retention:
    """The outcome: ``removed`` lists runs, ``kept`` maps runs to the reason."""

    removed: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


def to_remove(runs: Path, keep: int | None, tonight: str = "") -> Retention:
    """The nights that :func:`remove_old` would remove, and why others stay; ``runs`` is the experiment's folder."""
    found = Retention()
    if keep is None:
        return found
    every = list(nights(runs))
    own = [(night, folder) for night, folder in every if folder.name != tonight]
    # A skipped night doesn't count among those to keep.
    begun = [night for night, _ in own if night.began]
    recent = {night.run for night in begun[:keep]}
    oldest = begun[keep - 1].date if 0 < keep <= len(begun) else None
    published = next((folder for _, folder in every if _is_published(folder)), None)
    trained = next((folder for _, folder in every if as_parent(folder)), None)
    # A skipped night stays as long as the nights of its time.
    old = [
        folder
        for night, folder in own
        if folder.name not in recent and (night.began or not (keep and (oldest is None or night.date >= oldest)))
    ]
    built_upon = _built_upon(old, runs.parent)
    for folder in old:
        if holder(folder):
            reason = "in use"
        elif folder == published:
            reason = "published last"
        elif folder == trained:
            reason = "the next night may continue from it"
        elif folder in built_upon:
            reason = f"{built_upon[folder]} builds on it"
        else:
            found.removed.append(folder.name)
            continue
        found.kept[folder.name] = reason
    return found


def remove_old(runs: Path, keep: int | None, tonight: str = "") -> Retention:
    """Removes earlier nights but the newest ``keep``; None keeps all.

    These always stay: a night that somebody works on, the one that was published last, the newest whose training
    finished, and one whose weights another run builds on. Runs that are no nights are never touched.
    """
    for half in runs.glob(f"{REMOVING}*"):
        shutil.rmtree(half, ignore_errors=True)
    planned, removed = to_remove(runs, keep, tonight), []
    for name in planned.removed:
        folder = runs / name
        with held(folder) as mine:
            if not mine:
                planned.kept[name] = "in use"
                continue
            gone = folder.with_name(f"{REMOVING}{name}")
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        removed.append(name)
    return Retention(removed, planned.kept)


def _is_published(folder: Path) -> bool:
    results = (result_of(folder / name) for name in Manifest.open(folder).of_kind("publish"))
    return any(isinstance(result, PublishResult) and result.status == "published" for result in results)


def _needs_nothing(stage: Path) -> bool:
    """Whether a stage is a pretraining that has trained: it has the weights itself, unless it has a base."""
    if stage.name not in Manifest.open(stage.parent).of_kind("pretrain") or not (stage / RESULT_FILE).exists():
        return False
    with contextlib.suppress(DataError):
        return (run := StageRun.of(stage)) is not None and run.base is None
    return False


def _built_upon(folders: list[Path], workspace: Path) -> dict[Path, str]:
    """For each of the runs that another run of the workspace reads: the other, as ``experiment/run``.

    Each stage's file is read once, however many nights are to go. A night that has trained no longer needs its parent.
    """
    found: dict[Path, str] = {}
    if not folders:
        return found
    for path in sorted(workspace.glob(f"*/*/*/{RUN_FILE}")):
        stage = path.parent
        if _needs_nothing(stage):
            continue
        # YAML may fold a long path over two lines.
        text = " ".join(path.read_text(encoding="utf-8").split())
        for folder in folders:
            if stage.parent != folder and f"{folder}/" in text:
                found.setdefault(folder, f"{stage.parent.parent.name}/{stage.parent.name}")
    return found
