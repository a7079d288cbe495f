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
from titanflow.common.errors import StageFailed
from titanflow.runs.contract import StageRun
from titanflow.runs.results import TrackerRecord

PATIENCE = 10.0
"""Seconds for a server's answer."""
SPACE_URL = "https://huggingface.co/spaces/{}"


class TrackioStore:
    """An open run, whose rows Trackio's own thread stores; ``client`` asks its server, and is None without one."""

    def __init__(self, opened: Any, client: Any = None) -> None:
        self.opened, self.client = opened, client
        self._logged: set[int] = set()

    def known(self) -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        for row in self._rows():
            found.setdefault(int(row["step"]), set()).update(row)
        return found

    def _rows(self) -> list[dict[str, Any]]:
        asked = {"project": self.opened.project, "run": self.opened.name, "run_id": self.opened.id}
        if self.client is not None:
            return list(self.client.predict(**asked, api_name="/get_logs"))
        from trackio.sqlite_storage import SQLiteStorage

        return list(SQLiteStorage.get_logs(**asked))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._logged.add(step)
        self.opened.log(dict(values), step=step)

    def link(self, record: TrackerRecord) -> None:
        """Logs what the stage made; what it used stands in the run's config, as Trackio uses only what it has."""
        import trackio

        for one in record.logged:
            artifact = trackio.Artifact(one.name, one.type, metadata={"digest": one.digest})
            artifact.add_reference(one.reference, checksum=False)
            self.opened.log_artifact(artifact, aliases=one.aliases)

    def end(self, failed: bool) -> None:
        """Waits for the last rows; Trackio has no word for a run that failed.

        Raises:
            StageFailed: the server doesn't have all rows. Trackio itself only warns, and takes any answer for a delay.
        """
        del failed
        self.opened.finish()
        if self.client is not None and (lost := self._logged - self.known().keys()):
            raise StageFailed(f"the server didn't take {len(lost)} of {len(self._logged)} rows")


def open_run(run: StageRun, record: TrackerRecord, begun: bool) -> TrackioStore:
    """Opens the stage's run, and gives ``record`` Trackio's id and the run's address."""
    folder = Path(os.environ.setdefault("TRACKIO_DIR", str(store_folder(run) / "trackio")))
    import trackio

    is_here = record.mode == "offline"
    if is_here and begun:
        # On a network's file system Trackio writes fragments, which only its dashboard puts into the store.
        import_module("trackio.fragments").import_inbox_dir()
    with without_network() if is_here else contextlib.nullcontext(), as_run(record.id if begun else ""):
        opened = trackio.init(
            project=record.project,
            name=record.name,
            group=record.group,
            config=run_config(run, record) | {"tags": record.tags},
            # A stage that begins anew has the name of the one before.
            resume="allow" if begun else "never",
            embed=False,
            # Of the machine the records have what `system/*` says.
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
    client = None if is_here else connect(opened)
    record.id, record.url = opened.id, folder.absolute().as_uri() if is_here else address()
    return TrackioStore(opened, client)


def connect(opened: Any) -> Any:
    """Trackio's client of a run's Space or server; it refuses a server that doesn't answer, which a run doesn't."""
    import trackio
    from huggingface_hub import get_token

    return trackio.RemoteClient(
        opened.url,
        # Trackio hands it to Spaces alone.
        hf_token=get_token(),
        write_token=os.environ.get("TRACKIO_WRITE_TOKEN") or None,
        httpx_kwargs={"timeout": PATIENCE},
        verbose=False,
    )


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


@contextlib.contextmanager
def as_run(id_: str) -> Iterator[None]:
    """Has trackio 0.43 resume the run of that id; empty for none.

    It goes by the name alone, and takes the newest run that has it: another person's on a shared server, or, if this
    one's rows never reached the server, that of the attempt before.
    """
    module: Any = import_module("trackio")
    before = module._safe_get_latest_run_for_init
    if id_:
        module._safe_get_latest_run_for_init = lambda *_, **__: {"id": id_}
    try:
        yield
    finally:
        module._safe_get_latest_run_for_init = before
