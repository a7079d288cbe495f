"""The flow on this machine: with the server that ``PREFECT_API_URL`` names, or with one for this run alone."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from prefect.events.worker import EventsWorker
from prefect.logging.configuration import ensure_logging_setup
from prefect.logging.handlers import APILogHandler
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_TO_API_BATCH_INTERVAL,
    get_current_settings,
    temporary_settings,
)

from flows.interruption import ended_after, sigterm_as_exit
from flows.server.configured_server import check_server
from flows.server.server import SERVER_GRACE_SECONDS, api_url, free_port, running_server
from tasks.process.process import GRACE_SECONDS
from tasks.ui.watcher import STEP_LINE, watcher
from titanflow.common.errors import TitanflowError
from titanflow.config.overrides import parse_settings

if TYPE_CHECKING:
    from flows.pretrain_sft import Summary

FLUSH_SECONDS = 5.0
LOG_SECONDS = 60.0
"""How often log lines go to a server that nobody looks at, and at the end: each request slows the training."""
INTERRUPTED_SECONDS = GRACE_SECONDS + SERVER_GRACE_SECONDS
"""How long the end of an interrupted run may take: its stage saves, and Prefect records it if the server answers."""
UNREAD = ("Finished in state Failed", "View at", "Still processing items")
"""Beginnings of lines that mean nothing without a UI, or that are printed better elsewhere."""
SERVER_ENV = {
    # As Prefect sets it for the server that it starts itself when no address is given.
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "0",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "0",
    # Automations belong to a lasting server; looking for them every few seconds slows the training.
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "0",
    # The last task's state is written on a timer; if the run ends first, it is lost with a long traceback.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
OWN_SETTINGS = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_LOGGING_TO_API_BATCH_INTERVAL: LOG_SECONDS}


def run_flow(
    experiment: str,
    configs: str | None = None,
    run: str | None = None,
    overrides: Sequence[str] = (),
    wait: bool = False,
) -> Summary:
    """Runs ``pretrain-sft`` in this process; ``overrides`` are ``key=value``, as ``--set`` takes them.

    With ``wait`` it waits for another run in the same folder; otherwise it is refused.

    Raises:
        ConfigError: the config can't be used.
        StageFailed: a stage failed; what was made before it stays.
    """
    values = {setting.key: setting.parameter for setting in parse_settings(overrides)}
    with ended_after(INTERRUPTED_SECONDS), sigterm_as_exit(), _readable_log(), local_api(meanwhile=_load_flow):
        from flows.pretrain_sft import pretrain_sft

        return pretrain_sft(experiment=experiment, configs=configs, run=run, wait=wait, overrides=values or None)


@contextlib.contextmanager
def local_api(meanwhile: Callable[[], object] | None = None) -> Iterator[str]:
    """The address of a Prefect API: the configured one, or one for the length of the block.

    ``meanwhile`` is called while that server starts, which takes seconds. Prefect would start a server by itself, but
    in the terminal's process group: ^C would end it before the run's last state is written, and its log would mix with
    the run's.
    """
    if url := PREFECT_API_URL.value():
        check_server(url)
        yield url
        return
    port = free_port()
    env = {**get_current_settings().to_environment_variables(exclude_unset=True), **SERVER_ENV}
    with (
        running_server(
            [sys.executable, "-m", "flows.server.own_server", str(port)], api_url(port), env, meanwhile
        ) as url,
        temporary_settings({**OWN_SETTINGS, PREFECT_API_URL: url}),
    ):
        try:
            yield url
        finally:
            # Both are sent in the background, and the server ends now.
            EventsWorker.drain_all(timeout=FLUSH_SECONDS, at_exit=False)
            APILogHandler().flush()


def _load_flow() -> None:
    """Imports the flow, and what would otherwise be imported for the first loss curve, between two stages."""
    for module in ("flows.pretrain_sft", "matplotlib.figure"):
        importlib.import_module(module)


class _Readable(logging.Filter):
    """Drops ``UNREAD`` lines, Prefect's tracebacks of errors that the command line prints as a message, and the steps'
    own lines where the live view shows them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], TitanflowError):
            return False
        if getattr(record, STEP_LINE, False) and watcher().shows_steps:
            return False
        return not record.getMessage().startswith(UNREAD)


@contextlib.contextmanager
def _readable_log() -> Iterator[None]:
    # Otherwise Prefect would make its handlers later, when the first flow is imported.
    ensure_logging_setup()
    readable = _Readable()
    handlers = logging.getLogger().handlers
    for handler in handlers:
        handler.addFilter(readable)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(readable)
