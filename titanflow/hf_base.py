"""A model in transformers' format as the base of a fine-tuning stage: a folder, or a repository of the Hub.

Weights are read from safetensors alone: a ``.bin`` file is a pickle, which runs what it says when it is loaded.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from titanflow.base_model import TOKENIZER_FILE, BaseArchitecture, tokenizer_digest
from titanflow.errors import ConfigError, Problem
from titanflow.fingerprint import digest, file_digest
from titanflow.hf_architecture import read_architecture

CONFIG_FILE = "config.json"
SUFFIX = ".safetensors"
WEIGHTS = f"model{SUFFIX}"
INDEX = "model.safetensors.index.json"
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DESCRIPTION = (
    *(CONFIG_FILE, INDEX, TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja"),
)
"""What a plan reads of a repository; the weights come in the prepare step."""


def hugging_face(folder: Path) -> BaseArchitecture:
    """A folder that transformers loads, as a base; a snapshot in the Hub's cache is called after its repository.

    Raises:
        ConfigError: a config that can't be read, or a model that torchtitan doesn't compute.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(Problem(f"can't be read: {error}", origin=str(path))) from None
    family, flavor, args = read_architecture(config, str(path))
    tokenizer = folder if (folder / TOKENIZER_FILE).is_file() else None
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
        digest=_identity(folder),
        in_hf=True,
    )


def is_hugging_face(folder: Path) -> bool:
    """Whether transformers loads the folder as it stands; a stage's folder holds its export one level below."""
    return (folder / CONFIG_FILE).is_file()


def repository_of(folder: Path) -> str:
    """The repository that a folder is a snapshot of in the Hub's cache; empty where it is none."""
    cached = folder.resolve().parent.parent
    if folder.resolve().parent.name != "snapshots" or not cached.name.startswith("models--"):
        return ""
    return "/".join(cached.name.split("--")[1:])


def _identity(folder: Path) -> str:
    """What the fingerprint of a stage holds: a snapshot's commit, or a folder's files with size and time."""
    if repository_of(folder):
        return folder.resolve().name
    weights = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weight_files(folder)]
    return digest([file_digest(folder / CONFIG_FILE), tokenizer_digest(folder), *weights])


def weight_files(folder: Path) -> list[Path]:
    """Every file of weights in a folder: torch reads them all, whatever the index says."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def missing_weights(folder: Path) -> list[str]:
    """The files of weights that the folder should have and hasn't."""
    index = folder / INDEX
    wanted = (
        sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if index.is_file()
        else [WEIGHTS]
    )
    return [name for name in wanted if not (folder / name).is_file()]


def check_weights_there(folder: Path) -> None:
    """Refuses a folder without its weights, or with weights that only a pickle holds.

    Raises:
        ConfigError: either of the two.
    """
    missing = missing_weights(folder)
    if not missing:
        return
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    raise ConfigError(_no_weights(str(folder), missing, pickled))


def _no_weights(where: str, missing: list[str], pickled: list[str]) -> Problem:
    if pickled:
        message = f"only pickled weights ({', '.join(pickled[:3])}): loading a pickle runs what it says"
        hint = "save them with transformers: model.save_pretrained(folder) writes safetensors"
    else:
        message, hint = f"the weights aren't there: {', '.join(missing[:3])}", ""
    return Problem(message, origin=where, expected=f"{WEIGHTS}, or {INDEX} and its files", hint=hint)


def describe_repository(repo_id: str, revision: str | None = None) -> Path:
    """Brings config and tokenizer of a repository into the Hub's cache; the folder of its snapshot.

    Where the Hub can't be reached, what the cache holds is taken.

    Raises:
        ConfigError: there is no such repository or revision, it has no safetensors, or neither Hub nor cache has it.
    """
    folder = Path(_download(repo_id, revision, list(DESCRIPTION)))
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(Problem(f"{repo_id} has no {CONFIG_FILE}", expected="a model that transformers loads"))
    if missing_weights(folder):
        names = _names(repo_id, folder.name)
        pickled = [name for name in names if name.endswith(".bin")]
        if names and not any(name.endswith(SUFFIX) for name in names):
            raise ConfigError(_no_weights(repo_id, missing_weights(folder), pickled))
    return folder


def download_weights(repo_id: str, revision: str, folder: Path) -> None:
    """Brings the weights of a snapshot into the Hub's cache, where the rest of it lies.

    Raises:
        ConfigError: the Hub can't be reached, or hasn't all of them.
    """
    _download(repo_id, revision, missing_weights(folder))
    check_weights_there(folder)


def download_model(repo_id: str, commit: str) -> Path:
    """Brings a whole model into the Hub's cache, its own code with it; the folder of its snapshot.

    Raises:
        ConfigError: the Hub can't be reached, or hasn't all of it.
    """
    folder = Path(_download(repo_id, commit, [*DESCRIPTION, "generation_config.json", "*.py"]))
    download_weights(repo_id, commit, folder)
    return folder


def _download(repo_id: str, revision: str | None, names: list[str]) -> str:
    from titanflow.hub.endpoint import hub_endpoint, redact, use_plain_transfer

    endpoint = hub_endpoint()
    use_plain_transfer(endpoint)
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    is_watched = sys.stderr.isatty() and any(name.endswith(SUFFIX) for name in names)
    (enable_progress_bars if is_watched else disable_progress_bars)()
    try:
        return str(snapshot_download(repo_id, revision=revision, allow_patterns=names, endpoint=endpoint))
    except Exception as error:  # the client raises a kind of its own for each answer, and for none
        reason = redact(str(error)).strip().splitlines()[0]
        raise ConfigError(
            Problem(
                f"{repo_id}{f' at {revision}' if revision else ''} can't be had from {endpoint}: {reason}",
                expected="a folder that is there, or a model of the Hub as owner/name",
                hint="a private or gated model needs HF_TOKEN, and that its owner let you in",
            )
        ) from None


def _names(repo_id: str, revision: str) -> list[str]:
    """The names of a repository's files; none where the Hub can't be asked."""
    from huggingface_hub import HfApi

    from titanflow.hub.endpoint import hub_endpoint

    try:
        return list(HfApi(endpoint=hub_endpoint()).list_repo_files(repo_id, revision=revision))
    except Exception:  # without an answer there is nothing to add to what the cache has
        return []


def download_plan(base: BaseArchitecture) -> dict[str, Any] | None:
    """What the prepare step has to bring of a base: its weights, where it is a repository's."""
    repo_id = repository_of(base.folder) if base.folder is not None and base.in_hf else ""
    return {"repo_id": repo_id, "revision": base.digest, "folder": str(base.folder)} if repo_id else None
