"""What the tests of a push have in common: a bundle on its way to the local Hub, and what arrived there."""

from __future__ import annotations

from collections.abc import Callable

from finished_run import REPO
from local_hub import LocalHub

from titanflow.publish.bundle import Bundle
from titanflow.publish.hub.push import Pushed

CARD = b"---\nlicense: mit\n---\n# it\n"
Push = Callable[..., Pushed]


def pushes(hub: LocalHub) -> int:
    """Commits after the one that a new repository begins with."""
    return len(hub.repos[REPO].commits) - 1


def sent(hub: LocalHub, revision: str = "main") -> dict[str, bytes]:
    files = hub.repos[REPO].files(revision)
    files.pop(".gitattributes")
    return files


def local(bundle: Bundle) -> dict[str, bytes]:
    sources = {name: entry.source for name, entry in bundle.items()}
    return {name: data if isinstance(data, bytes) else data.read_bytes() for name, data in sources.items()}
