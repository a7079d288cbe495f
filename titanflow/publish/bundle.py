"""The published files: a list with their hashes, the same for a folder and for the Hub.

An allow-list chooses the files. Whatever else lies in an export folder (a ``.env``, a symlink, torchtitan's
``sharded/``) stays there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from titanflow.architectures.remote_code import EVALS, own_code, trust_remote_code
from titanflow.common.errors import DataError, Problem

CARD = "README.md"
LINEAGE = "titanflow.json"
SAMPLES = "titanflow_samples.json"
LOSS_CURVE = "loss.svg"
WRITTEN = (CARD, LINEAGE, SAMPLES, LOSS_CURVE)
"""The files that publishing itself writes beside the exported ones."""
INDEX = "model.safetensors.index.json"
REQUIRED = ("config.json", "tokenizer.json", "tokenizer_config.json")
EXPORTED = (*REQUIRED, "generation_config.json", "special_tokens_map.json", "chat_template.jinja", INDEX)
WEIGHTS = re.compile(r"model[\w.-]*\.safetensors")
BENCHMARK_SCORES = re.compile(r"\.eval_results/[A-Za-z0-9][\w.-]*\.yaml")
TASKS = f"{EVALS}/tasks"
"""The experiment's own tasks that were evaluated."""
ITEMS = f"{EVALS}/items"
"""The items that these tasks read."""
SCORED = f"{EVALS}/scored.json"
"""The numbers of the scored items, if items that were trained on were left out."""
SUITES = f"{EVALS}/suites"
"""The suites that were asked for."""
SUITE_FILES = re.compile(rf"{SUITES}/\w+\.yaml")
_PART = r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*"
TASK_FILES = re.compile(rf"(?:{TASKS}/(?:{_PART}/)*{_PART}\.(?:yaml|py)|{ITEMS}/(?:{_PART}/)*{_PART})")
CHUNK = 1 << 20
"""Bytes that are read at a time when a file is hashed."""


@dataclass(frozen=True)
class Entry:
    """One file's bytes and size, and both hashes that a Hub may know it by: Git LFS's SHA-256, git's own SHA-1."""

    source: Path | bytes
    size: int
    sha256: str
    blob_sha1: str


Bundle = Mapping[str, Entry]
"""Name → file. A bundle is flat except for ``.eval_results/``, where the Hub looks for scores of its benchmarks,
and ``evals/``, the experiment's own tasks."""


def is_published(name: str) -> bool:
    if is_exported(name) or name in (*WRITTEN, SCORED):
        return True
    return any(pattern.fullmatch(name) for pattern in (BENCHMARK_SCORES, TASK_FILES, SUITE_FILES))


def is_exported(name: str) -> bool:
    """Of Python files, only this package's own modelling code comes from an export."""
    return name in EXPORTED or name in own_code() or WEIGHTS.fullmatch(name) is not None


def bytes_entry(data: bytes) -> Entry:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return Entry(data, len(data), hashlib.sha256(data).hexdigest(), blob.hexdigest())


def file_entry(path: Path) -> Entry:
    """Reads the file once for both hashes."""
    size = path.stat().st_size
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            blob.update(chunk)
    return Entry(path, size, sha256.hexdigest(), blob.hexdigest())


def from_export(folder: Path) -> dict[str, Entry]:
    """The part of a bundle that comes from an export: architecture, weights and tokenizer."""
    if not folder.is_dir():
        raise DataError(Problem("there is no export to publish", origin=str(folder), hint="run the stage again"))
    has_code = trust_remote_code(folder)
    names = sorted(path.name for path in folder.iterdir() if is_exported(path.name))
    names = [name for name in names if has_code or not name.endswith(".py")]
    for name in names:
        path = folder / name
        if path.is_symlink() or not path.is_file():
            kind = "a symlink" if path.is_symlink() else "no file"
            raise DataError(Problem(f"{name} is {kind}", origin=str(folder), expected="a regular file"))
    check_complete(folder, names)
    return {name: file_entry(folder / name) for name in names}


def check_complete(folder: Path, names: list[str]) -> None:
    """Raises a DataError that names each file which ``from_pretrained`` needs and ``names`` lacks."""
    needed = list(REQUIRED)
    if INDEX in names:
        needed += sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        needed.append("model.safetensors")
    if missing := [name for name in needed if name not in names]:
        hint = "run the stage again; its export is incomplete"
        raise DataError([Problem(f"{name} is missing", origin=str(folder), hint=hint) for name in missing])


def check_evaluated(bundle: Bundle, evaluated: Mapping[str, str]) -> None:
    """Raises a DataError unless the bundle has the files that were evaluated; ``evaluated`` is file → SHA-256."""
    problems = []
    for name, entry in bundle.items():
        if name not in evaluated:
            problems.append(Problem("was not there when the model was evaluated", name))
        elif entry.sha256 != evaluated[name]:
            found = f"changed since it was evaluated: its SHA-256 is {entry.sha256}"
            problems.append(Problem(found, name, expected=evaluated[name]))
    removed = [name for name in evaluated if name not in bundle and is_exported(name)]
    problems += [Problem("was evaluated and is gone", name) for name in removed]
    if problems:
        hint = "evaluate this export again, or export the evaluated checkpoint again"
        problems[-1] = replace(problems[-1], hint=hint)
        raise DataError(problems)
