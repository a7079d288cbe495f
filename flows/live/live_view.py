"""The live view of ``titanflow run`` in a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flows.live.screen import Screen, is_live
from tasks.ui.watcher import watched_by

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import Plan


@contextlib.contextmanager
def live_view(plan: Plan) -> Iterator[None]:
    """Shows the flow of the block, if stderr is a terminal; otherwise its log's lines are all there is to see."""
    if not is_live(sys.stderr):
        yield
        return
    from flows.live.run_view import RunView

    view = RunView(plan)
    with watched_by(view), Screen(view, sys.stderr):
        yield
