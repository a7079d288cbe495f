"""A stage's run in Trackio: a folder in the workspace, or the Space or server that ``TRACKIO_*`` names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from titan.tracking.run_record import redacted, run_config
from titan.tracking.stores.store import store_folder
from titanflow.runs.contract import StageRun
from titanflow.runs.results import TrackerRecord

SPACE_URL = "https://huggingface.co/spaces/{}"


class TrackioStore:
    """An open run, whose rows Trackio's own thread stores."""

    def __init__(self, opened: Any) -> None:
        self.opened = opened

    def known(self) -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        for row in self._rows():
            found.setdefault(int(row["step"]), set()).update(row)
        return found

    def _rows(self) -> list[dict[str, Any]]:
        import trackio

        asked = {"project": self.opened.project, "run": self.opened.name, "run_id": self.opened.id}
        if (server := self.opened.url) is None:
            from trackio.sqlite_storage import SQLiteStorage

            return list(SQLiteStorage.get_logs(**asked))
        token = os.environ.get("TRACKIO_WRITE_TOKEN") or None
        client = trackio.RemoteClient(server, write_token=token, verbose=False)
        return list(client.predict(**asked, api_name="/get_logs"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.opened.log(dict(values), step=step)

    def link(self, record: TrackerRecord) -> None:
        """Logs what the stage made; what it used stands in the run's config, as Trackio uses only what it has."""
        import trackio

        for one in record.logged:
            artifact = trackio.Artifact(one.name, one.type, metadata={"digest": one.digest})
            artifact.add_reference(one.reference, checksum=False)
            self.opened.log_artifact(artifact, aliases=one.aliases)

    def end(self, failed: bool) -> None:
        """Waits for the last rows; Trackio has no word for a run that failed."""
        del failed
        self.opened.finish()


def open_run(run: StageRun, record: TrackerRecord, begun: bool) -> TrackioStore:
    """Opens the stage's run, and gives ``record`` Trackio's id and the run's address."""
    folder = Path(os.environ.setdefault("TRACKIO_DIR", str(store_folder(run) / "trackio")))
    import trackio

    is_here = record.mode == "offline"
    if is_here and begun:
        # On a network's file system Trackio writes fragments, which only its dashboard puts into the store.
        import_module("trackio.fragments").import_inbox_dir()
    with without_network() if is_here else contextlib.nullcontext():
        opened = trackio.init(
            project=record.project,
            name=record.name,
            group=record.group,
            config=run_config(run, record) | {"tags": record.tags},
            # By the name alone; a stage that begins anew has the name of the one before.
            resume="allow" if begun else "never",
            embed=False,
            # Of the machine the records have what `system/*` says.
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
    record.id, record.url = opened.id, folder.absolute().as_uri() if is_here else address()
    return TrackioStore(opened)


def address() -> str:
    """The page of the Space or server, without the token that its URL may hold."""
    if space := os.environ.get("TRACKIO_SPACE_ID"):
        return SPACE_URL.format(space)
    parts = urlsplit(os.environ["TRACKIO_SERVER_URL"])
    return str(redacted(parts._replace(query="", fragment="").geturl()))


@contextlib.contextmanager
def without_network() -> Iterator[None]:
    """Keeps trackio 0.43 from asking huggingface.co for the user's name, which it does even for a local run.

    The Hub's client isn't taken offline instead: a training may be streaming from the Hub meanwhile.
    """
    module: Any = import_module("trackio.run")
    before = module._get_default_namespace
    module._get_default_namespace = lambda: None
    try:
        yield
    finally:
        module._get_default_namespace = before
