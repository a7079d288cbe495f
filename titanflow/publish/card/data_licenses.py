"""The sources that a model was trained on: rows, share of the tokens and licence.

Only what somebody states is said of a licence: the config, or the card of a dataset that lies on this machine. A card
that doesn't lie here isn't fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from titanflow.common.files import expanded
from titanflow.config.keys.licenses import is_link
from titanflow.publish.card.markdown import code, plain
from titanflow.publish.card.training_data import dataset_info, mixture_folders
from titanflow.runs.contract import METRICS_FILE, DataOrigin
from titanflow.runs.metrics import read_metrics

if TYPE_CHECKING:
    from titanflow.publish.lineage import Lineage, TrainedStage

NOT_STATED = "not stated"
CARD = "README.md"


def licenses_table(lineage: Lineage) -> list[list[str]]:
    """One row for each source of each trained stage, below a header; empty if no source is known."""
    stages = {stage.name: stage for stage in lineage.trained}
    shares = {name: trained_shares(stage) for name, stage in stages.items()}
    rows = [
        [
            one.stage,
            plain(one.name),
            source_text(one),
            rows_text(one, stages[one.stage], lineage),
            # A stage's only source has all tokens.
            share_text(shares[one.stage].get(one.member) if one.member else 1.0),
            license_text(one),
        ]
        for one in lineage.trained_on
    ]
    return [["stage", "data", "source", "rows", "share of tokens", "licence"], *rows] if rows else []


def trained_shares(stage: TrainedStage) -> Mapping[str, float]:
    """Each source's share of the tokens that a stage read, by its name in the mixture."""
    records = [record["shares"] for record in read_metrics(stage.folder / METRICS_FILE) if "shares" in record]
    return records[-1] if records else {}


def rows_text(one: DataOrigin, stage: TrainedStage, lineage: Lineage) -> str:
    """The source's documents or conversations; nothing is counted of streamed data."""
    place = stage.run.data.train
    if place is not None and one.member:
        place = mixture_folders(place, lineage.datasets).get(one.member)
    count = dataset_info(place, lineage.datasets).get("documents") if place is not None else None
    return "" if count is None else f"{count:,}"


def share_text(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def source_text(one: DataOrigin) -> str:
    """The dataset's name on the Hub, and the stated address."""
    is_here = not one.dataset or expanded(one.dataset).exists() or one.dataset.startswith(("/", ".", "~"))
    parts = ["" if is_here else code(one.dataset), f"<{one.link}>" if one.link and is_link(one.link) else ""]
    return ", ".join(part for part in parts if part)


def license_text(one: DataOrigin) -> str:
    """What is stated of a source's licence, and by whom if that isn't the config."""
    if one.license:
        return plain(one.license)
    said = card_license(one) if one.dataset else ""
    return f"{plain(said)}, as the dataset's card says" if said else NOT_STATED


def card_license(one: DataOrigin) -> str:
    """The licence in the front matter of a dataset's card; empty if the card isn't here, or names none."""
    from huggingface_hub import DatasetCard, try_to_load_from_cache

    folder = expanded(one.dataset)
    if folder.is_dir():
        path: Path | None = folder / CARD
    else:
        cached = try_to_load_from_cache(one.dataset, CARD, repo_type="dataset", revision=one.revision or None)
        path = Path(cached) if isinstance(cached, str) else None
    if path is None or not path.is_file():
        return ""
    try:
        data = DatasetCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
    except (OSError, ValueError, yaml.YAMLError):  # a card may hold anything
        return ""
    found = data.get("license")
    found = data.get("license_name") or found if found == "other" else found
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found or "")
