"""Leaves a flow run whose state on the server was changed: suspended, deleted, ended by hand, or put off by ``serve``.

Prefect tells a flow between two tasks that it was suspended, which may be hours later. It never tells a flow that it
was deleted or got another state: its stage would train on unseen, and a later stage would publish.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import threading
from collections.abc import Iterator

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import Abort, ObjectNotFound, Pause, PrefectSignal, TerminationSignal
from prefect.states import Cancelled

from tasks.ui.labels import WORKER_LABEL

LOOK_SECONDS = 5.0
"""How often the server is asked."""
NOT_FOUND = "Flow run not found"
"""The server's own words: a proxy before it answers 404, too, while the server is away."""

nobody_else = contextvars.ContextVar("nobody_else", default=False)
"""Whether the server is this process's own, on which nobody else changes a state."""


class StateChanged(Abort):
    """The run got another state from outside; Prefect ends without giving it a further one."""


class RunCancelled(StateChanged):
    """The run was cancelled, and no worker is there to end it."""


@contextlib.contextmanager
def heeding_server() -> Iterator[None]:
    """Leaves the block, as on SIGTERM, if this process's flow run doesn't run any more by the server.

    Raises:
        Pause: the run was suspended.
        StateChanged: the run was deleted, or has another state.
    """
    context = FlowRunContext.get()
    is_main = threading.current_thread() is threading.main_thread()
    if context is None or context.flow_run is None or not is_main or nobody_else.get():
        yield
        return
    run, logger = context.flow_run, get_run_logger()
    over, sending = threading.Event(), threading.Lock()
    change: PrefectSignal | None = None

    def look() -> None:
        nonlocal change
        with get_client(sync_client=True) as client:
            while not over.wait(LOOK_SECONDS):
                if found := _change(client, run):
                    logger.warning("%s: the stage saves and ends", found)
                    with sending:
                        if not over.is_set():
                            change = found
                            # It interrupts whatever the main thread waits for; Prefect's handler makes an exception of
                            # it, with which the task ends, too.
                            os.kill(os.getpid(), signal.SIGTERM)
                    return

    try:
        try:
            # The thread gets this one's context: settings name the server.
            started = threading.Thread(target=contextvars.copy_context().run, args=[look], daemon=True)
            started.start()
            yield
        finally:
            # The thread isn't waited for: its request may take a minute if the server is away.
            with sending:
                over.set()
    except TerminationSignal:
        if change is None:
            raise
        if isinstance(change, RunCancelled):
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(run.id, Cancelled(message=f"{change}."))
        raise change from None


def _change(client: SyncPrefectClient, run: FlowRun) -> PrefectSignal | None:
    """What became of a run that is at work here; None if it runs by the server, or the server doesn't answer."""
    try:
        found = client.read_flow_run(run.id)
    except ObjectNotFound as error:
        return StateChanged("The run was deleted on the server") if NOT_FOUND in str(error.http_exc) else None
    except Exception:
        # A server may be away for a while without harm to the run.
        return None
    state = found.state
    if state is None or (state.is_running() and found.run_count == run.run_count):
        return None
    if state.is_cancelling():
        return None if WORKER_LABEL in found.labels else RunCancelled("The run was cancelled")
    if state.is_paused():
        return Pause("The run was suspended", state=state)
    if state.is_running() or state.is_pending():
        return StateChanged("The run was started again elsewhere")
    why = f" ({state.message.rstrip('.')})" if state.message else ""
    return StateChanged(f"The run's state was set to {state.name}{why}")
