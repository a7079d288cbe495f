"""The sources of a module's rows, and what identifies their content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from titanflow.common.digests import digest
from titanflow.config.checks.module import has_data
from titanflow.config.division import sources
from titanflow.config.experiment import Experiment
from titanflow.config.module import Module
from titanflow.data.fingerprints import data_files, data_name
from titanflow.files.yaml_source import display
from titanflow.runs.contract import DataOrigin, StageRun
from titanflow.runs.inputs import SourceFile

SECTIONS = {"data": "train", "validation_data": "validation"}
"""The sections of a module's rows, and the part that each is prepared as."""
FILES_NAMED = 1000
"""A manifest lists each file of a source up to this number; of more it has only their common digest."""


def read_sections(module: Module) -> Iterator[str]:
    """The sections whose rows a stage reads: none beside random tokens, nor to validate on while that is off."""
    if module.trains and module.config["training"]["mock_data"]:
        return
    for section in SECTIONS:
        if has_data(module, section) and (section == "data" or module.config["validation"]["enable"]):
            yield section


def read_sources(experiment: Experiment) -> Iterator[tuple[Module, str, dict[str, Any]]]:
    """Each source that a stage reads: its module, its key and its config."""
    for module in experiment.modules.values():
        for section in read_sections(module):
            for key, data in sources(module.config[section], section).items():
                yield module, key, data


def data_origins(experiment: Experiment) -> list[DataOrigin]:
    """The sources of all rows that are trained on, in the order of the modules."""
    return [
        DataOrigin(
            stage=module.name,
            name=data_name(data),
            member=key.partition(".mixture.sources.")[2],
            dataset=data.get("dataset") or "",
            revision=data.get("revision") or "",
            license=data.get("license") or "",
            link=data.get("link") or "",
        )
        for module, key, data in read_sources(experiment)
        if module.trains and key.partition(".")[0] == "data"
    ]


def unstated_licenses(run: StageRun) -> list[str]:
    """A warning if the card of a model will say of its data that no licence is stated.

    What a Hub dataset's own card says isn't known before the data is fetched.
    """
    names = list(dict.fromkeys(one.name for one in run.trained_on if not one.license and not one.dataset))
    if not names or run.config.get("target") != "hub":
        return []
    card = f'the card will say license: {run.config["license"]}, and of the data {", ".join(names)} "not stated"'
    return [f"{run.stage}: {card}. `license:` beside the data's source states it"]


@dataclass(frozen=True)
class DataSource:
    """One source of a module's rows.

    ``section`` is where it stands in the module's config (``data``, or ``data.mixture.sources.<name>``), ``data`` its
    config, ``parts`` what :func:`titanflow.data.fingerprints.data_parts` says of it.
    """

    section: str
    data: dict[str, Any]
    parts: dict[str, Any]

    def content(self) -> dict[str, tuple[Any, dict[str, SourceFile]]]:
        """What identifies the source's content, by the key that names it, and its files where they are local."""
        source = self.parts["source"]
        if self.data.get("source"):
            interpreter = {**source, "files": digest(source["files"])}
            return {f"source: {name}": (value, {}) for name, value in interpreter.items()}
        name = "path" if self.data.get("path") else "dataset"
        if isinstance(source, str):
            return {name: (source, {})}
        return {name: (digest(source), self._files(source))}

    def _files(self, source: list[Any]) -> dict[str, SourceFile]:
        if len(source) > FILES_NAMED:
            return {}
        digests = [one if isinstance(one, str) else one[1] for one in source]
        return {
            display(path): SourceFile.of(path, sha256)
            for path, sha256 in zip(data_files(self.data), digests, strict=True)
        }
