"""A model in transformers' format as the base of a fine-tuning stage: a folder, or a repository of the Hub.

Only safetensors are read: a ``.bin`` file is a pickle, and loading a pickle runs code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from titanflow.architectures.base import TOKENIZER_FILE, BaseArchitecture, tokenizer_digest
from titanflow.architectures.config_json import read_architecture
from titanflow.architectures.hf_snapshot import file_names, repository_of, snapshot
from titanflow.common.digests import digest, file_digest
from titanflow.common.errors import ConfigError, Problem

CONFIG_FILE = "config.json"
SUFFIX = ".safetensors"
WEIGHTS = f"model{SUFFIX}"
INDEX = "model.safetensors.index.json"
DESCRIPTION = (
    *(CONFIG_FILE, INDEX, TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja"),
)
"""The files of a repository that a plan reads; the prepare step fetches the weights."""


def described_model(folder: Path) -> tuple[str, str, dict[str, Any]]:
    """torchtitan's family, a flavor and all arguments of the model in a folder that transformers loads.

    Raises:
        ConfigError: a config that can't be read, or a model that torchtitan doesn't compute.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(Problem(f"can't be read: {error}", origin=str(path))) from None
    if not isinstance(config, dict):
        raise ConfigError(Problem(f"found a {type(config).__name__}", origin=str(path), expected="a model's config"))
    return read_architecture(config, str(path))


def own_tokenizer(folder: Path) -> Path | None:
    """The folder itself if it holds a tokenizer beside the model."""
    return folder if (folder / TOKENIZER_FILE).is_file() else None


def hugging_face(folder: Path) -> BaseArchitecture:
    """A folder that transformers loads, as a base; a snapshot in the Hub's cache is named after its repository.

    Raises:
        ConfigError: see :func:`described_model`.
    """
    family, flavor, args = described_model(folder)
    tokenizer = own_tokenizer(folder)
    return BaseArchitecture(
        stage=repository_of(folder) or folder.resolve().name,
        model_name=family,
        flavor=flavor,
        model_args=args,
        seq_len=args["max_seq_len"],
        overrides=args,
        tokenizer=tokenizer,
        tokenizer_digest=tokenizer_digest(tokenizer),
        checkpoint=folder.resolve(),
        folder=folder.resolve(),
        digest=identity(folder),
        in_hf=True,
    )


def is_hugging_face(folder: Path) -> bool:
    """Whether transformers loads the folder as it stands; a stage's folder holds its export one level below."""
    return (folder / CONFIG_FILE).is_file()


def identity(folder: Path) -> str:
    """A model's part of a stage's fingerprint: a snapshot's commit, or a folder's files with size and time."""
    if repository_of(folder):
        return folder.resolve().name
    weights = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weight_files(folder)]
    config = folder / CONFIG_FILE
    return digest([file_digest(config) if config.is_file() else "", tokenizer_digest(folder), *weights])


def weight_files(folder: Path) -> list[Path]:
    """All files of weights in a folder: torch reads each, whatever the index says."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def missing_weights(folder: Path) -> list[str]:
    """The files of weights that a folder lacks.

    Raises:
        ConfigError: its index can't be read.
    """
    index, wanted = folder / INDEX, {WEIGHTS}
    try:
        if index.is_file():
            wanted = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        expected = "weight_map: the file of each weight"
        raise ConfigError(Problem(f"can't be read: {error!r}", origin=str(index), expected=expected)) from None
    return sorted(name for name in wanted if not (folder / name).is_file())


def check_weights_there(folder: Path) -> None:
    """Refuses a folder without its weights, or with weights that only a pickle holds.

    Raises:
        ConfigError: either of the two.
    """
    if missing := missing_weights(folder):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise ConfigError(_no_weights(str(folder), missing, pickled))


def _no_weights(where: str, missing: list[str], pickled: list[str]) -> Problem:
    if pickled:
        message = f"only pickled weights ({', '.join(pickled[:3])}): loading a pickle runs the code in it"
        hint = "save them with transformers: model.save_pretrained(folder) writes safetensors"
    else:
        message, hint = f"the weights aren't there: {', '.join(missing[:3])}", ""
    return Problem(message, origin=where, expected=f"{WEIGHTS}, or {INDEX} and its files", hint=hint)


def describe_repository(repo_id: str, revision: str | None = None) -> Path:
    """Fetches config and tokenizer of a repository into the Hub's cache; returns the folder of its snapshot.

    If the Hub can't be reached, the cache's copy is taken.

    Raises:
        ConfigError: there is no such repository or revision, it lacks safetensors, or neither Hub nor cache has it.
    """
    folder = snapshot(repo_id, revision, DESCRIPTION)
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(Problem(f"{repo_id} has no {CONFIG_FILE}", expected="a model that transformers loads"))
    if missing := missing_weights(folder):
        # The prepare step may still fetch them: they are missing only if the Hub doesn't list them either.
        names = [name for name in file_names(repo_id, folder.name) if "/" not in name]
        if names and (absent := [name for name in missing if name not in names]):
            is_pickled = not any(name.endswith(SUFFIX) for name in names)
            pickled = [name for name in names if is_pickled and name.endswith(".bin")]
            raise ConfigError(_no_weights(repo_id, absent, pickled))
    return folder


def download_weights(repo_id: str, revision: str, folder: Path) -> None:
    """Fetches the weights of a snapshot into the Hub's cache, beside its other files.

    Raises:
        ConfigError: the Hub can't be reached, or hasn't all of them.
    """
    if missing := missing_weights(folder):
        snapshot(repo_id, revision, missing)
    check_weights_there(folder)


def download_model(repo_id: str, commit: str) -> Path:
    """Fetches a whole model with its own code into the Hub's cache; returns the folder of its snapshot.

    Raises:
        ConfigError: the Hub can't be reached, or hasn't all of it.
    """
    folder = snapshot(repo_id, commit, [*DESCRIPTION, "generation_config.json", "*.py"])
    download_weights(repo_id, commit, folder)
    return folder


def download_plan(folder: Path) -> dict[str, str] | None:
    """The weights that the prepare step has to fetch, if the folder is a repository's snapshot; else None."""
    folder = folder.resolve()
    repo_id = repository_of(folder)
    return {"repo_id": repo_id, "revision": folder.name, "folder": str(folder)} if repo_id else None
