"""Fingerprints of everything that prepared data depends on, and the folders that they name.

Nothing heavy is imported: a plan asks for these before anything is prepared.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

from titanflow.common.digests import digest, file_digest
from titanflow.common.errors import DataError, Problem
from titanflow.common.files import expanded
from titanflow.config.keys.training import PARTS, RENDERED_KINDS, Data
from titanflow.config.mixture import mixture_members, mixture_spec
from titanflow.data.files.local_files import KEY, Ending, local_files
from titanflow.data.held_out.eval_items import named_files
from titanflow.data.stdlib.text import source_files, stdlib_folder
from titanflow.data.tokenizer.tokenizer import check_tokenizer, check_vocab_size, tokenizer_files

DATA_VERSION = 8
"""Raise it whenever the same data would be prepared into other bytes."""
DIGESTS_FILE = "digests.json"
# Keys that say where rows are, not what is in them.
_NOT_CONTENT = ("name", "path", "dataset", "streaming", "mixture", "license", "link")
_RENDERED = ("template", "template_args", "turns", "tool_arguments")
# Smaller files are hashed each time: that takes no time, and can't be wrong.
_REMEMBERED_SIZE = 32 << 20


def data_fingerprint(
    data: Mapping[str, Any],
    tokenizer_fingerprint: str = "",
    seq_len: int = 0,
    chat: Mapping[str, Any] | None = None,
    workspace: Path | None = None,
) -> str:
    """The fingerprint of a data config's prepared rows: the digest of :func:`data_parts`."""
    if members := mixture_members(data):
        ours = (tokenizer_fingerprint, seq_len, chat, workspace)
        return mixture_fingerprint(data, {name: data_fingerprint(member, *ours) for name, member in members.items()})
    return digest(data_parts(data, tokenizer_fingerprint, seq_len, chat, workspace))


def data_parts(
    data: Mapping[str, Any],
    tokenizer_fingerprint: str = "",
    seq_len: int = 0,
    chat: Mapping[str, Any] | None = None,
    workspace: Path | None = None,
) -> dict[str, Any]:
    """Everything that the prepared rows of one source depend on.

    That is its config and content, the tokenizer, the version of the code, and for chats ``seq_len`` and the rendering
    (``chat``; None for evaluation items, which aren't rendered). With a ``workspace``, the digests of large files are
    cached there by path, size and time.

    Raises:
        DataError: a file isn't there.
    """
    config = Data(**data)
    content = {key: value for key, value in asdict(config).items() if key not in _NOT_CONTENT}
    parts: dict[str, Any] = {"version": DATA_VERSION, "config": content, "source": _source(config, workspace)}
    if config.kind != "evals":
        parts["tokenizer"] = tokenizer_fingerprint
    if config.kind in RENDERED_KINDS and chat is not None:
        parts |= {"seq_len": seq_len, "chat": {key: chat.get(key) for key in _RENDERED}}
    return parts


def data_files(data: Mapping[str, Any]) -> list[Path]:
    """The local files of one source, in the order of their digests in :func:`data_parts`; empty for other sources.

    Raises:
        DataError: a file isn't there.
    """
    if path := data.get("path"):
        return local_files(path).files
    dataset = data.get("dataset")
    return _folder_files(expanded(dataset)) if dataset else []


def mixture_fingerprint(data: Mapping[str, Any], members: Mapping[str, str]) -> str:
    """The fingerprint of a mixture; ``members`` has the fingerprint of each source by name."""
    return digest({"version": DATA_VERSION, "members": dict(members), "mixture": mixture_spec(data)})


def tokenizer_fingerprint(
    tokenizer: Mapping[str, Any], data: Mapping[str, Any], vocab_size: int, workspace: Path | None = None
) -> str:
    """The fingerprint of a tokenizer: of a given one's files, or of the text and size that it is trained with.

    ``tokenizer`` has the ``path`` of a given one, and ``words`` if text isn't split into words as usual. ``data`` is
    the pretraining data's config; for ``workspace`` see :func:`data_parts`.

    Raises:
        DataError: the given folder is no tokenizer, the size is too small, or the text isn't there.
    """
    if path := tokenizer.get("path"):
        return digest(given_files(path))
    check_vocab_size(vocab_size)
    words = {"words": tokenizer["words"]} if tokenizer.get("words") else {}
    text = data_fingerprint({**data, "kind": "text"}, workspace=workspace)
    return digest({"text": text, "vocab_size": vocab_size, **words})


def given_files(path: str | Path) -> dict[str, str]:
    """SHA-256 of each of a tokenizer's files that matter, by name.

    Raises:
        DataError: it is no tokenizer.
    """
    return {file.name: file_digest(file) for file in tokenizer_files(check_tokenizer(path))}


def prepared_folder(workspace: Path | str, data: Mapping[str, Any], fingerprint: str) -> Path:
    """The folder of a data config's rows, which all runs of the workspace share."""
    return Path(workspace) / "data" / f"{data_name(data)}-{fingerprint}"


def tokenizer_folder(workspace: Path | str, fingerprint: str) -> Path:
    """The folder of a tokenizer, which all runs of the workspace share."""
    return Path(workspace) / "data" / f"tokenizer-{fingerprint}"


def data_name(data: Mapping[str, Any]) -> str:
    """The name for a prepared folder: the config's ``name``, or one made from its source; safe as a file name."""
    path = data.get("path")
    first = path[0] if isinstance(path, list) and path else path
    made = Path(first).stem if first else "mixture" if mixture_members(data) else "data"
    name = data.get("name") or data.get("source") or data.get("dataset") or made
    name = f"{name}-{part}" if (part := data.get("part")) in ("dev", "test") else name
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in str(name)).strip(".-") or "data"


def _source(config: Data, workspace: Path | None) -> Any:
    if config.source:
        return _interpreter(config)
    if config.path:
        _check_apart([config.path] if isinstance(config.path, str) else config.path, workspace)
        files = local_files(config.path).files
        _check_document(config, files)
        # Evaluation tasks find their files by name; otherwise only the ending matters, which says how to read a file.
        known_by = named_files(config.path) if config.kind == "evals" else [str(Ending.of(file)) for file in files]
        return list(zip(known_by, _digests(files, workspace), strict=True))
    if config.dataset and expanded(config.dataset).is_dir():
        folder = expanded(config.dataset)
        files = _folder_files(folder)
        names = [file.relative_to(folder).as_posix() for file in files]
        return list(zip(names, _digests(files, workspace), strict=True))
    if config.dataset:
        if config.dataset.startswith(("/", "./", "../", "~")):
            found = f"{config.dataset} isn't there (looked for it in {Path.cwd()})"
            raise DataError(Problem(found, "data.dataset", expected="a folder, or a dataset's name on the Hub"))
        return config.dataset
    expected = "exactly one of data.source, data.path and data.dataset"
    raise DataError(Problem("the data has no source", "data", expected=expected))


def _check_apart(entries: list[str], workspace: Path | None) -> None:
    """Refuses a folder with the runs in it: a run would be trained on what the runs before it wrote."""
    if workspace is None:
        return
    for entry in entries:
        searched = _searched(entry)
        if searched is not None and workspace.resolve().is_relative_to(searched):
            message = f"{entry} holds the folder of the runs, {workspace}, whose files would be read, too"
            hint = "put the data into a folder of its own, or the runs elsewhere (`workspace`)"
            raise DataError(Problem(message, KEY, expected="files that no run writes", hint=hint))


def _searched(entry: str) -> Path | None:
    """The folder below which all files are read; None where these are named, or lie in one folder."""
    path = expanded(entry)
    if path.is_dir():
        return path.resolve()
    parts = list(takewhile(lambda part: not any(sign in part for sign in "*?["), path.parts))
    return Path(*parts).resolve() if "**" in path.parts else None


def _check_document(config: Data, files: list[Path]) -> None:
    if config.document != "file" and not any(Ending.of(file).format == "text" for file in files):
        message, hint = f"found {config.document!r}, and none of {len(files)} files is plain text", "leave it out"
        raise DataError(Problem(message, "data.document", hint=hint))


def _folder_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []


def _interpreter(config: Data) -> dict[str, Any]:
    """What the built-in sources depend on: the interpreter whose library they are read from."""
    parts = PARTS if config.kind != "text" else (config.part or "train",)
    files = [file for part in parts for file in _sized(stdlib_folder(), part)]
    return {"python": sys.version, "machine": platform.machine(), "files": files}


@functools.cache
def _sized(root: Path, part: str) -> list[tuple[str, int]]:
    return [(file.relative_to(root).as_posix(), file.stat().st_size) for file in source_files(part)]


def _digests(files: list[Path], workspace: Path | None) -> list[str]:
    large = [file for file in files if file.stat().st_size >= _REMEMBERED_SIZE]
    memory = workspace / "data" / DIGESTS_FILE if workspace is not None and large else None
    remembered = _remembered(memory)
    known = dict(remembered)
    for file in large:
        if _identity(file) not in known:
            known[_identity(file)] = file_digest(file)
    if memory is not None and known != remembered:
        from titanflow.common.files import write_text_atomically

        write_text_atomically(memory, json.dumps(known, indent=0))
    return [known.get(_identity(file)) or file_digest(file) for file in files]


def _remembered(memory: Path | None) -> dict[str, str]:
    try:
        return dict(json.loads(memory.read_text(encoding="utf-8"))) if memory is not None and memory.is_file() else {}
    except (ValueError, TypeError):
        return {}


def _identity(file: Path) -> str:
    state = file.stat()
    return f"{os.fspath(file.resolve())}|{state.st_size}|{state.st_mtime_ns}"
