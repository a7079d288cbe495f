"""Whether a folder holds what was published, byte for byte; checked before anything of it is loaded.

``titanflow.json`` lists every other file with its SHA-256 and ends with a digest of itself, which finds damage and
mix-ups. Whoever can write the folder can write that list as well. So a run's own record and the Hub's hashes are
compared too, if there are any.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.common.digests import file_digest
from titanflow.common.errors import DataError, Problem
from titanflow.publish.bundle import LINEAGE, SIGNATURE, difference, file_entry
from titanflow.publish.signing.signature import UNSIGNED, wrong_signature
from titanflow.runs.contract import RESULT_FILE
from titanflow.runs.results import PublishResult

if TYPE_CHECKING:
    from titanflow.publish.bundle import Tree

SEAL = "sha256"
"""The last key of ``titanflow.json``: the SHA-256 of the file without this key."""


@dataclass(frozen=True)
class Check:
    """One thing that was checked; ``found`` says what was seen, or which file is wrong and how."""

    name: str
    passed: bool
    found: str


def seal(content: Mapping[str, Any]) -> bytes:
    """The bytes of ``titanflow.json``: ``content``, then a digest of it."""
    return _bytes({**content, SEAL: hashlib.sha256(_bytes(content)).hexdigest()})


def _bytes(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def read_sealed(data: bytes) -> dict[str, Any] | None:
    """What :func:`seal` was given; None if a byte has changed since."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):  # no JSON, or lists within lists without end
        return None
    if not isinstance(content, dict) or SEAL not in content:
        return None
    del content[SEAL]
    return content if seal(content) == data else None


def check_folder(folder: Path, key: Path | None = None) -> tuple[list[Check], dict[str, Any]]:
    """Compares a folder with its ``titanflow.json`` and signature and, if it lies in a run, with the run's record.

    ``key`` is the public key of whoever should have signed it.

    Returns:
        the checks, and the content of ``titanflow.json``; empty if it can't be trusted.

    Raises:
        DataError: there is no ``titanflow.json``.
    """
    if not (folder / LINEAGE).is_file():
        hint = "only what publish wrote can be verified: `<run>/publish/model`, or a repository that it pushed to"
        raise DataError(Problem(f"no {LINEAGE}", origin=str(folder), expected="a published model", hint=hint))
    content = read_sealed((folder / LINEAGE).read_bytes())
    digests = {name: _digest(path) for name, path in _files(folder).items()}
    checks = [*_signature(folder, digests, (content or {}).get("signed_by", ""), key), *_against_run(folder, digests)]
    if content is None:
        return [Check(LINEAGE, False, "changed since it was written: its own digest doesn't fit"), *checks], {}
    # The list can't hold its own hash, nor that of the signature over it.
    digests = {name: found for name, found in digests.items() if name not in (LINEAGE, SIGNATURE)}
    listed = content.get("files")
    if not isinstance(listed, dict):
        return [Check(LINEAGE, False, "lists no files"), *checks], {}
    return [Check(LINEAGE, True, "as it was written"), *_against_list(folder, digests, listed), *checks], content


def check_tree(folder: Path, tree: Tree) -> Check:
    """Compares a downloaded folder with the hashes that the Hub gives for the files of its commit."""
    changes = difference({name: file_entry(path) for name, path in _files(folder).items() if path.is_file()}, tree)
    return Check("the Hub's hashes", not changes, str(changes) if changes else f"{len(tree)} files arrived unchanged")


def _files(folder: Path) -> dict[str, Path]:
    """Each file by its name; a link counts as one, as the Hub's cache consists of links."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    named = {path.relative_to(folder): path for path in paths}
    return {name.as_posix(): path for name, path in named.items() if name.parts[0] not in UNSIGNED}


def _digest(path: Path) -> str:
    # Reading a pipe could wait forever for a writer.
    if path.exists() and not path.is_file():
        return "none: it is no regular file"
    try:
        return file_digest(path)
    except OSError as error:
        return f"can't be read: {error.strerror}"


def _signature(folder: Path, digests: Mapping[str, str], signed_by: str, key: Path | None) -> list[Check]:
    """One check of the signature; none if nobody says that there is one."""
    if SIGNATURE not in digests:
        said = f"is missing: {LINEAGE} says that the key {signed_by} signed this" if signed_by else "there is none"
        return [Check(SIGNATURE, False, said)] if signed_by or key is not None else []
    if key is None:
        return [Check(SIGNATURE, True, "is there; no key was given to check it: --key PUBLIC.pem")]
    if wrong := wrong_signature(folder, digests, key):
        return [Check(SIGNATURE, False, f"doesn't fit the files and the key {key}: {wrong}")]
    return [Check(SIGNATURE, True, f"signed by the owner of {key}, every file of it")]


def _against_list(folder: Path, found: Mapping[str, str], listed: Mapping[str, str]) -> list[Check]:
    """One check for each file that differs from ``titanflow.json``, or one for all."""
    wrong = _differences(found, listed)
    size = sum((folder / name).stat().st_size for name in found) if not wrong else 0
    return wrong or [Check("files", True, f"{len(found)} files, {size / 1e6:,.1f} MB: every SHA-256 is as listed")]


def _against_run(folder: Path, found: Mapping[str, str]) -> list[Check]:
    """Compares with the result of the publish that wrote the folder, if that lies beside it."""
    path = folder.resolve().parent / RESULT_FILE
    try:
        result = PublishResult.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []  # another stage's, or none
    # A publish that was held back leaves the old model in place.
    if result.status != "published" or Path(result.location).resolve() != folder.resolve():
        return []
    wrong = _differences(found, result.files)
    names = ", ".join(check.name for check in wrong)
    said = f"the run published other bytes of {names}" if wrong else "as the run published them"
    return [Check(RESULT_FILE, not wrong, said)]


def _differences(found: Mapping[str, str], expected: Mapping[str, str]) -> list[Check]:
    checks = []
    for name in sorted({*found, *expected}):
        if name not in found:
            checks.append(Check(name, False, "is missing"))
        elif name not in expected:
            checks.append(Check(name, False, "was not published: remove it, or load from another folder"))
        elif found[name] != expected[name]:
            checks.append(Check(name, False, f"changed: its SHA-256 is {found[name]}, published was {expected[name]}"))
    return checks
