"""The data of a run's stages: trained and held-out rows, tokens, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from titanflow.data.dataset_info import is_complete, read_facts
from titanflow.files.own_files import read_mapping
from titanflow.runs.contract import CUT, RESULT_FILE, StageRun

PARTS = {"train": "trained on", "validation": "held out"}


@dataclass(frozen=True)
class TrainingData:
    """One source of one stage's rows.

    ``tokens`` counts all, ``trained_tokens`` those with a label. ``fill`` is the share of packed rows' places that hold
    a token. ``dropped`` counts the rows that were left out, by reason, and ``cut`` those that were shortened to
    ``seq_len``. ``folder`` is where they lie.
    """

    stage: str
    part: str
    name: str
    kind: str
    documents: int | None = None
    rows: int | None = None
    seq_len: int | None = None
    tokens: int | None = None
    trained_tokens: int | None = None
    fill: float | None = None
    packing: str | None = None
    proved: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    cut: int = 0
    folder: Path = Path()


def training_data(runs: Iterable[StageRun], datasets: Mapping[str, Any]) -> list[TrainingData]:
    """Each training stage's data, from :func:`prepared_datasets`; a mixture's sources are separate.

    Streamed data has no counts.
    """
    return [
        _described(run.stage, label, place, dataset_info(place, datasets))
        for run in runs
        for part, label in PARTS.items()
        for place in _sources(getattr(run.data, part), datasets)
    ]


def prepared_datasets(run: Path) -> dict[str, Any]:
    """The ``dataset.json`` of each folder that a run prepared or found prepared, by its path, as the run noted it."""
    result = run / "prepare" / RESULT_FILE
    return read_mapping(result).get("datasets", {}) if result.is_file() else {}


def hub_datasets(config: Mapping[str, Any]) -> list[str]:
    """The datasets of the Hugging Face Hub that a stage's ``data`` section names, in order."""
    data = config.get("data") or {}
    sources = ((data.get("mixture") or {}).get("sources") or {}).values()
    named = [source.get("dataset") for source in (data, *sources)]
    return list(dict.fromkeys(name for name in named if name and is_repository(name)))


def is_repository(name: str) -> bool:
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1 and not Path(name).exists()


def _sources(place: Path | None, datasets: Mapping[str, Any]) -> list[Path]:
    return [] if place is None else list(mixture_folders(place, datasets).values()) or [place]


def mixture_folders(place: Path, datasets: Mapping[str, Any]) -> dict[str, Path]:
    """The prepared folder of each source of a mixture by its name; empty if the place holds none."""
    members = (dataset_info(place, datasets).get("mixture") or {}).get("members") or {}
    return {name: Path(member) for name, member in members.items()}


def dataset_info(place: Path, datasets: Mapping[str, Any]) -> dict[str, Any]:
    """A prepared folder's ``dataset.json``, as the run noted it or as it lies there; empty if neither is left."""
    if str(place) in datasets:
        return dict(datasets[str(place)])
    return read_facts(place) if is_complete(place) else {}


def _described(stage: str, part: str, folder: Path, info: Mapping[str, Any]) -> TrainingData:
    keys = ("documents", "rows", "seq_len", "tokens", "trained_tokens", "fill", "packing")
    kept: dict[str, Any] = {key: info.get(key) for key in keys}
    name, kind = info.get("name") or "", info.get("kind") or ""
    counted: dict[str, Any] = {"proved": info.get("proved") or 0, "dropped": dict(info.get("dropped") or {})}
    return TrainingData(
        stage, part, name, kind, **kept, **counted, cut=(info.get("notes") or {}).get(CUT, 0), folder=folder
    )
