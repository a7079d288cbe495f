"""The GGUF files of a model: made and proved by a process of their own, and published only as they were proved."""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from titanflow.common.credentials import redact
from titanflow.common.digests import digest, folder_digests
from titanflow.common.errors import ConfigError, DataError, StageFailed
from titanflow.config.keys.after_training import Publish
from titanflow.files.own_files import read_mapping
from titanflow.publish.bundle import Bundle, Entry, file_entry
from titanflow.publish.continuation import without_token
from titanflow.publish.lineage import Lineage
from titanflow.publish.settings import published_name
from titanflow.runs.contract import StageRun
from titanflow.runs.errors import ending
from titanflow.runs.results import GgufFile

log = logging.getLogger(__name__)

MAKE = (sys.executable, "-m", "titan.gguf.make")
"""Writes and proves the files; a process of its own, as the proof needs torch."""
FOLDER = "gguf"
"""The files' folder below the stage's. They stay there, so that a publication that is tried again doesn't prove them
again."""
PROOF_FILE = "proof.json"
PACKAGES = ("gguf", "xllamacpp", "transformers", "torch")
"""The packages on whose versions the files and their proof depend."""


@dataclass(frozen=True)
class GgufFiles:
    """The files to publish, and the proof of each GGUF file by its name."""

    entries: Bundle = field(default_factory=dict)
    proofs: Mapping[str, GgufFile] = field(default_factory=dict)


def file_name(name: str, kind: str) -> str:
    """The name of a model's file in a format, as is usual for llama.cpp."""
    return f"{name}-{kind.upper()}.gguf"


def make_files(run: StageRun, settings: Publish, lineage: Lineage) -> GgufFiles:
    """The published model's GGUF files with their ``Modelfile``; none if none are asked for.

    Raises:
        StageFailed: llama.cpp does otherwise than the model, or a file isn't the one that was proved.
    """
    if not settings.gguf:
        return GgufFiles()
    folder = run.folder / FOLDER
    arguments = ["--name", published_name(settings, run.experiment), "--formats", *settings.gguf]
    if lineage.is_tuned:
        arguments.append("--chats")
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    made_of = digest([arguments, folder_digests(lineage.export), versions])
    if (found := proved(folder, made_of)) is None:
        log.info("writing %s, and proving each with llama.cpp", ", ".join(settings.gguf))
        rows = lineage.published.run.data.validation or lineage.published.run.data.train
        if rows is not None and rows.is_dir():
            arguments += ["--rows", str(rows)]
        command = [*MAKE, str(lineage.export), str(folder), *arguments, "--of", made_of]
        # Else ggml has a debugger write hundreds of lines behind its last words.
        environment = {**without_token(), "GGML_NO_BACKTRACE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            # A process that was killed couldn't tidy up.
            shutil.rmtree(partial_folder(folder), ignore_errors=True)
            raise (ConfigError if done.returncode == 2 else StageFailed)(f"no GGUF file is published: {_said(done)}")
        found = proved(folder, made_of)
    if found is None:
        raise StageFailed(f"no GGUF file is published: the files in {folder} aren't those that were proved")
    for name, proof in found.proofs.items():
        log.info("%s: %s", name, proof)
    return found


def partial_folder(out: Path) -> Path:
    """Where files lie until all of them are proved."""
    return out.with_name(f".{out.name}.partial")


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """A failed process's own words; one that was killed said none, and its last line may tell what happened to it."""
    said = redact(done.stderr.strip())
    if done.returncode > 0 and said:
        return said
    last = said.splitlines()[-1] if said else ""
    return f"titan.gguf.make {ending(done.returncode)}" + (f": {last}" if last else "")


def proved(folder: Path, made_of: str) -> GgufFiles | None:
    """The files of a folder, if they were made of the same and are, to the byte, those that were proved."""
    path = folder / PROOF_FILE
    try:
        record = read_mapping(path)
        files, proofs = record["files"], {name: GgufFile(**proof) for name, proof in record["proofs"].items()}
    except (DataError, ValueError, LookupError, TypeError, AttributeError):
        return None  # none were made here, or nobody knows of what: they are made again
    if record.get("of") != made_of:
        return None
    entries: dict[str, Entry] = {name: file_entry(folder / name) for name in files if (folder / name).is_file()}
    if {name: entry.sha256 for name, entry in entries.items()} != files:
        return None
    return GgufFiles(entries, proofs)
