"""Finds how long the same work took before, in the manifests of a workspace's runs."""

from __future__ import annotations

import contextlib
import heapq
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.common.digests import digest
from titanflow.runs.contract import METRICS_FILE, RESULT_FILE, StageRun
from titanflow.runs.manifest import MANIFEST_FILE
from titanflow.runs.metrics import parse_metrics

if TYPE_CHECKING:
    from titanflow.config.experiment import Experiment

NEWEST = 30
"""Only so many runs are read, the last that wrote their manifest: a plan has no time for a year of nights."""
EXPERIMENTS = 30
"""Only in so many experiments are runs looked for, those that got a run last."""
LOOKED_AT = 100
"""Only so many runs of an experiment are looked at, the last by name: nights and dates sort by time. A file system over
a network takes a millisecond for each look."""
TAIL = 1 << 16
"""Bytes that are read from the end of an unfinished stage's metrics."""
TRAINING_KEYS = (
    "seq_len", "local_batch_size", "global_batch_size", "dtype", "mixed_precision_param", "mixed_precision_reduce",
    "enable_cpu_offload", "loss_chunks",
)  # fmt: skip
OPTIMIZER_KEYS = ("name", "implementation", "muon_ns_steps")
LAUNCHER_KEYS = ("nproc_per_node", "nnodes", "device", "omp_num_threads")
SECTIONS = ("parallelism", "activation_checkpoint", "compile", "validation", "lora", "quantize")


@dataclass(frozen=True)
class Measured:
    """What a stage took: ``wall`` seconds in all (None if unfinished), of them ``around`` not for training steps."""

    run: str
    wall: float | None = None
    around: float | None = None
    seconds_per_step: float = 0.0
    tokens_per_step: float = 0.0
    tokens_per_second: float = 0.0


def work_digest(run: StageRun, experiment: Experiment, device: str) -> str:
    """A digest of all that a stage's speed depends on, the kind of device included; a training's steps don't count."""
    if not run.trains:
        work: Any = {name: _model(one.config, one.model_overrides) for name, one in experiment.modules.items()}
        if run.kind == "prepare":
            # Folders that exist take no time.
            folders = [Path(dataset["folder"]) for dataset in run.config["datasets"]]
            work = [run.kind, *(folder.name for folder in folders if not folder.is_dir())]
        config = {key: value for key, value in run.config.items() if key != "workspace"}
        return digest([run.kind, config, work, device])
    config = run.config
    parts = {name: config.get(name) for name in SECTIONS}
    parts |= {"training": [config["training"].get(key) for key in TRAINING_KEYS]}
    parts |= {"launcher": [config["launcher"].get(key) for key in LAUNCHER_KEYS]}
    parts |= {"optimizer": [config["optimizer"].get(key) for key in OPTIMIZER_KEYS]}
    parts |= {"saves": [config["checkpoint"].get(key) for key in ("enable", "interval", "async_mode")]}
    parts |= {"rows": [(config.get("data") or {}).get(key) for key in ("name", "kind", "packing")]}
    return digest([run.kind, _model(config, run.model_overrides), parts, device])


def _model(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[Any]:
    model = config.get("model")
    named = [model.get("name"), model.get("flavor")] if isinstance(model, Mapping) else [model]
    return [*named, dict(overrides)]


@dataclass(frozen=True)
class History:
    """The runs of a workspace."""

    workspace: Path

    @cached_property
    def manifests(self) -> list[tuple[Path, bytes]]:
        """The folders of the newest runs with their manifests as they are stored, newest first."""
        experiments = heapq.nlargest(EXPERIMENTS, _folders(self.workspace), key=_modified)
        names = (heapq.nlargest(LOOKED_AT, _folders(folder)) for folder in experiments)
        paths = [folder / MANIFEST_FILE for found in names for folder in found]
        newest = heapq.nlargest(NEWEST, ((_modified(path), path) for path in paths))
        return [(path.parent, _bytes(path)) for _, path in newest]

    def of(self, run: StageRun, like: str) -> Measured | None:
        """What the newest stage of the same digest took; this run's own, even unfinished, goes first."""
        own = run.folder.parent
        # Most manifests hold no such stage, and are long: they aren't parsed.
        entries = ((folder, text) for folder, text in self._with(own) if like.encode() in text)
        found = (
            self._measured(folder / name, record, run.trains)
            for folder, text in entries
            for name, record in _records(_parsed(text)).items()
            if isinstance(record, dict) and (record.get("forecast") or {}).get("like") == like
        )
        return next(filter(None, found), None)

    def _with(self, own: Path) -> list[tuple[Path, bytes]]:
        others = dict(self.manifests)
        mine = others.pop(own, None)
        return [(own, _bytes(own / MANIFEST_FILE) if mine is None else mine), *others.items()]

    @staticmethod
    def _measured(folder: Path, record: dict[str, Any], trained: bool) -> Measured | None:
        """What the stage in a folder took, by its record in the manifest."""
        name, wall = f"run {folder.parent.name}", _wall(record)
        if not trained:
            return None if wall is None else Measured(name, wall)
        result = _read(folder / RESULT_FILE) if wall is not None else {}
        last = {"step": result.get("step"), **result} if result else _last_record(folder / METRICS_FILE)
        steps, seconds = last.get("step") or 0, last.get("seconds") or 0.0
        if not steps or not seconds:
            return None
        # A stage that was resumed began long before its last attempt.
        around = wall - seconds if result and wall is not None and wall > seconds else None
        tokens = last.get("tokens") or 0
        return Measured(name, wall, around, seconds / steps, tokens / steps, last.get("tokens_per_second") or 0.0)


def _records(manifest: Mapping[str, Any]) -> dict[str, Any]:
    found = manifest.get("stages")
    return found if isinstance(found, dict) else {}


def _wall(record: Mapping[str, Any]) -> float | None:
    try:
        started, finished = (datetime.fromisoformat(record[key]) for key in ("started", "finished"))
    except (KeyError, TypeError, ValueError):
        return None
    return (finished - started).total_seconds()


def _last_record(path: Path) -> dict[str, Any]:
    """The last training step of a stage's metrics; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            text = file.read()
    except OSError:
        return {}
    trained = [one for one in parse_metrics(text[: text.rfind(b"\n") + 1]) if isinstance(one, dict) and "tokens" in one]
    return trained[-1] if trained else {}


def _read(path: Path) -> dict[str, Any]:
    return _parsed(_bytes(path))


def _parsed(text: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    return {}


def _bytes(path: Path) -> bytes:
    """A file as it is stored; empty if it can't be read."""
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, known from its list alone; none if it isn't there."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return [folder / entry.name for entry in entries if entry.is_dir()]
    return []


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
