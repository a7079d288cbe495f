"""Who watches a running flow in its process: the terminal's live view, or nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.ui.standing import Standing
    from titanflow.planning.stage_plan import Plan
    from titanflow.runs.results import StageResult

STEP_LINE = "titanflow_step_line"
"""The mark of a log record that tells of a single step."""


class Watcher:
    """What a flow tells of itself, in this order; this one isn't interested.

    ``shows_steps`` says that the watcher shows each step, so that the terminal's log needn't.
    """

    shows_steps = False

    def plans(self, plan: Plan) -> None:
        """The flow holds the run's folder, and follows this plan."""

    def says(self, text: str) -> None:
        """Between two stages the flow does something that takes a while."""

    def begins(self, standing: Standing) -> None:
        """A stage starts, or starts again; its progress goes into ``standing``."""

    def ends(self, stage: str, result: StageResult) -> None:
        """A stage has a result, perhaps since an earlier run."""


NOBODY = Watcher()
_WATCHER: ContextVar[Watcher] = ContextVar("watcher", default=NOBODY)


def watcher() -> Watcher:
    """Whom the flow around the caller tells of itself."""
    return _WATCHER.get()


@contextlib.contextmanager
def watched_by(someone: Watcher) -> Iterator[None]:
    """Flows of the block tell ``someone``."""
    token = _WATCHER.set(someone)
    try:
        yield
    finally:
        _WATCHER.reset(token)
