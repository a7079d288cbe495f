"""The published files: a list with their hashes, the same for a folder and for the Hub, and what they change there.

An allow-list chooses the files. Whatever else lies in an export folder (a ``.env``, a symlink, torchtitan's
``sharded/``) stays there.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from titanflow.architectures.huggingface import INDEX
from titanflow.architectures.remote_code import EVALS, own_code, trust_remote_code
from titanflow.common.digests import file_digest
from titanflow.common.errors import DataError, Problem
from titanflow.files.own_files import read_mapping, readable

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

    Tree = Mapping[str, RepoFile]

HINT = "run the stage again; its export is incomplete"
CARD = "README.md"
LINEAGE = "titanflow.json"
SAMPLES = "titanflow_samples.json"
LOSS_CURVE = "loss.svg"
MODELFILE = "Modelfile"
"""By it Ollama runs a GGUF file."""
SIGNATURE = "model.sig"
"""Signs all other files, if there is a key: :mod:`titanflow.publish.signing.signature`."""
WRITTEN = (CARD, LINEAGE, SAMPLES, LOSS_CURVE, MODELFILE, SIGNATURE)
"""The files that publishing itself writes beside the exported ones."""
REQUIRED = ("config.json", "tokenizer.json", "tokenizer_config.json")
EXPORTED = (*REQUIRED, "generation_config.json", "special_tokens_map.json", "chat_template.jinja", INDEX)
WEIGHTS = re.compile(r"model[\w.-]*\.safetensors")
GGUF = re.compile(r"[\w.-]+-(?:F32|F16|BF16|Q8_0)\.gguf")
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
KEPT = frozenset({".gitattributes"})
"""Files that the Hub puts into a new repository itself."""
CHUNK = 1 << 20
"""Bytes that are read at a time when a file is hashed."""


@dataclass(frozen=True)
class Entry:
    """One file's bytes and size, and both hashes that a Hub may know it by: Git LFS's SHA-256, git's own SHA-1."""

    source: Path | bytes
    size: int
    sha256: str
    blob_sha1: str

    def read(self) -> bytes:
        """The file's bytes."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    def is_at(self, path: Path) -> bool:
        """Whether a file has these bytes. Its size comes first: a hash reads the whole file."""
        return path.is_file() and path.stat().st_size == self.size and file_digest(path) == self.sha256


Bundle = Mapping[str, Entry]
"""Name → file. A bundle is flat except for ``.eval_results/``, where the Hub looks for scores of its benchmarks,
and ``evals/``, the experiment's own tasks."""


def is_published(name: str) -> bool:
    if is_exported(name) or name in (*WRITTEN, SCORED):
        return True
    return any(pattern.fullmatch(name) for pattern in (BENCHMARK_SCORES, TASK_FILES, SUITE_FILES, GGUF))


def is_exported(name: str) -> bool:
    """Of Python files, only this package's own modelling code comes from an export."""
    return name in EXPORTED or name in own_code() or WEIGHTS.fullmatch(name) is not None


def modelling_code(bundle: Bundle) -> list[str]:
    """The Python files that a model loads with ``trust_remote_code``."""
    return sorted(name for name in bundle if name.endswith(".py") and "/" not in name)


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
        index = read_mapping(folder / INDEX, HINT)
        with readable(folder / INDEX, HINT):
            needed += sorted(set(index["weight_map"].values()))
    else:
        needed.append("model.safetensors")
    if missing := [name for name in needed if name not in names]:
        raise DataError([Problem(f"{name} is missing", origin=str(folder), hint=HINT) for name in missing])


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


@dataclass(frozen=True)
class Difference:
    """The files to write, new or changed, and the files to delete."""

    added: tuple[str, ...]
    deleted: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.deleted)

    def __str__(self) -> str:
        return ", ".join([*self.added, *(f"{name} (not in the export)" for name in self.deleted)])

    def log(self, bundle: Bundle, log: logging.Logger) -> None:
        for name in self.added:
            log.info("would write %s, %.3f MB", name, bundle[name].size / 1e6)
        for name in self.deleted:
            log.info("would delete %s", name)
        if not self:
            log.info("nothing would change")


def difference(bundle: Bundle, tree: Tree) -> Difference:
    """What must change for a commit to hold exactly the bundle. Only hashes are compared: nothing is downloaded."""
    added = tuple(name for name, entry in bundle.items() if name not in tree or not same(entry, tree[name]))
    return Difference(added, tuple(name for name in tree if name not in bundle and name not in KEPT))


def same(entry: Entry, remote: RepoFile) -> bool:
    """Whether the Hub holds the same bytes: it knows large files by SHA-256, others by git's own hash."""
    return remote.lfs.sha256 == entry.sha256 if remote.lfs else remote.blob_id == entry.blob_sha1
