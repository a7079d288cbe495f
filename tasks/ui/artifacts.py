"""Prefect's artifacts of a running stage; no training waits for them."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Sequence
from logging import LoggerAdapter
from typing import Any, TypeVar
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
)
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.context import SettingsContext, get_settings_context
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES

from titanflow.common.curves import draw, loss_panel

Returned = TypeVar("Returned")
Logger = logging.Logger | LoggerAdapter[logging.Logger]

PAUSE_SECONDS = 60.0
"""How long no artifact is updated after the API didn't answer."""
IMPATIENT = {
    # Prefect's retries and its timeout of a minute would delay the next reading of metrics.
    PREFECT_CLIENT_MAX_RETRIES: 0,
    PREFECT_API_REQUEST_TIMEOUT: 5.0,
}


class Artifacts:
    """The artifacts of a stage, each named ``<stage>-<what>``; an unreachable API is logged once, as a warning."""

    def __init__(self, stage: str, logger: Logger) -> None:
        self.stage = stage
        self._logger = logger
        self._progress: UUID | None = None
        self._rests_until = 0.0
        self._complained = False
        # Kept, as are clients: making one takes 20 ms, too much to repeat during a training.
        self._impatient = get_settings_context().settings.copy_with_update(updates=IMPATIENT)
        self._client: SyncPrefectClient | None = None

    def table(self, what: str, rows: Sequence[dict[str, Any]], description: str) -> None:
        if rows:
            self._show(create_table_artifact, list(rows), key=self._key(what), description=description)

    def image(self, what: str, url: str, description: str) -> None:
        self._show(create_image_artifact, url, key=self._key(what), description=description)

    def link(self, what: str, url: str, text: str) -> None:
        self._show(create_link_artifact, url, link_text=text, key=self._key(what), description=text)

    def progress(self, percent: float, text: str) -> None:
        """Sets the stage's ring, 0 to 100, and the text beside it."""
        if self._progress is None:
            self._progress = self._show(create_progress_artifact, percent, key=self._key("progress"), description=text)
        else:
            self._show(self._update, self._progress, ArtifactUpdate(data=percent, description=text))

    def _update(self, artifact: UUID, update: ArtifactUpdate) -> None:
        self._client = self._client or get_client(sync_client=True)
        self._client.update_artifact(artifact, update)

    def _key(self, what: str) -> str:
        # Prefect takes small letters, digits and dashes.
        return f"{self.stage.lower().replace('_', '-')}-{what}"

    def _show(self, call: Callable[..., Returned], *args: Any, **kwargs: Any) -> Returned | None:
        if time.monotonic() < self._rests_until:
            return None
        try:
            with SettingsContext(profile=get_settings_context().profile, settings=self._impatient):
                return call(*args, **kwargs)
        except Exception as error:
            self._client = None
            self._rests_until = time.monotonic() + PAUSE_SECONDS
            if not self._complained:
                self._complained = True
                self._logger.warning("Prefect's artifacts can't be updated (%s); %s goes on", error, self.stage)
            return None


def loss_curve(records: Sequence[dict[str, Any]], title: str) -> str | None:
    """A ``data:`` URI of an SVG with training and validation loss; None for fewer than two points."""
    panel = loss_panel(records, title)
    return data_uri(draw([panel])) if panel else None


def data_uri(svg: bytes) -> str:
    """A picture as an address that holds it."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
