"""A Hub on this machine that holds a model's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_storage import Blob, Repo
from local_hub import LocalHub

REPO = "local/tiny"


def upload(hub: LocalHub, folder: Path) -> Repo:
    """A private repository with the folder's files, tagged v1."""
    repo = hub.repos[REPO] = Repo(private=True)
    files = {path.name: Blob(path.read_bytes(), path.suffix == ".safetensors") for path in folder.iterdir()}
    repo.commit("main", "tiny", {**files, ".gitattributes": Blob(b"*.safetensors filter=lfs\n")})
    repo.tags["v1"] = repo.branches["main"]
    return repo


def talk_to(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """This process's client asks that Hub, and keeps what it gets in ``cache``; it has read the environment already."""
    from huggingface_hub import constants

    for key, value in {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
