"""The flow on this machine: with the server that ``PREFECT_API_URL`` names, or with one for this run alone."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.events.worker import EventsWorker
from prefect.exceptions import Abort, Pause
from prefect.logging.configuration import ensure_logging_setup
from prefect.logging.handlers import APILogHandler
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_TO_API_BATCH_INTERVAL,
    PREFECT_SERVER_API_AUTH_STRING,
    get_current_settings,
    temporary_settings,
)

from flows.interruption.by_server import nobody_else
from flows.interruption.by_signal import ended_after, sigterm_as_exit
from flows.server import own_database
from flows.server.configured_server import check_server, configured_url
from flows.server.server import AT_API, SERVER_GRACE_SECONDS, api_url, free_port, running_server
from tasks.process.process import GRACE_SECONDS
from tasks.ui.watcher import STEP_LINE, watcher
from titanflow.common.errors import StageStopped, TitanflowError
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
    **AT_API,
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
        StageStopped: the run was cancelled, suspended, deleted or ended on its server.
    """
    values = {setting.key: setting.parameter for setting in parse_settings(overrides)}
    with ended_after(INTERRUPTED_SECONDS), sigterm_as_exit(), _readable_log(), local_api(meanwhile=_load_flow):
        from flows.pretrain_sft import pretrain_sft

        try:
            return pretrain_sft(experiment=experiment, configs=configs, run=run, wait=wait, overrides=values or None)
        except (Abort, Pause) as told:
            raise StageStopped(f"{told}. What was saved stays; the next run goes on from there.") from None


@contextlib.contextmanager
def local_api(meanwhile: Callable[[], object] | None = None) -> Iterator[str]:
    """The address of a Prefect API: the configured one, or one for the length of the block.

    ``meanwhile`` is called while that server starts, which takes seconds. Prefect would start a server by itself, but
    in the terminal's process group: ^C would end it before the run's last state is written, and its log would mix with
    the run's.
    """
    if url := configured_url():
        check_server(url)
        yield url
        return
    # In a shell from which a team's server is started its password stands, too.
    password = PREFECT_SERVER_API_AUTH_STRING.value()
    with (
        tempfile.TemporaryDirectory(prefix="titanflow-") as folder,
        own_server(Path(folder, "prefect.db"), meanwhile) as url,
        temporary_settings({**OWN_SETTINGS, PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: password}),
    ):
        own = nobody_else.set(True)
        try:
            yield url
        finally:
            nobody_else.reset(own)
            # Both are sent in the background, and the server ends now.
            EventsWorker.drain_all(timeout=FLUSH_SECONDS, at_exit=False)
            APILogHandler().flush()


def own_server(database: Path, meanwhile: Callable[[], object] | None = None) -> contextlib.AbstractContextManager[str]:
    """A run's own server, and its address, for the length of a block."""
    port = free_port()
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    env = {**settings, **SERVER_ENV, **own_database.environment(database)}
    command = [sys.executable, "-m", "flows.server.own_server", str(port), str(database)]
    return running_server(command, api_url(port), env, meanwhile)


def _load_flow() -> None:
    """Imports the flow, and what would otherwise be imported for the first loss curve, between two stages."""
    for module in ("flows.pretrain_sft", "matplotlib.figure"):
        importlib.import_module(module)


class _Readable(logging.Filter):
    """Drops ``UNREAD`` lines, the error that ends the run, which the command line prints, and the steps' own lines
    where the live view shows them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR and isinstance(record.args, tuple) and _has_error(record.args):
            return False
        if getattr(record, STEP_LINE, False) and watcher().shows_steps:
            return False
        return not record.getMessage().startswith(UNREAD)


def _has_error(args: tuple[object, ...]) -> bool:
    return any(isinstance(argument, TitanflowError) for argument in args)


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
