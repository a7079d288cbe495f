"""Which process of pytest-xdist runs which file."""

import functools
import re
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

LOOKS_AT_RUNS = re.compile(r"^def test_\w+\([^)]*\b(uninterrupted|killed)\b", re.MULTILINE)
"""The trainings of ``tests/titan/conftest.py``, which last for as long as a process does."""


class SharedRuns(LoadFileScheduling):
    """As ``--dist loadfile``, but files that look at the same trainings go to one process, which makes them once."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "shared runs" if looks_at_runs(self.config.rootpath / file) else file


@functools.cache
def looks_at_runs(file: Path) -> bool:
    """Whether a test in the file asks for one of them."""
    return LOOKS_AT_RUNS.search(file.read_text(encoding="utf-8")) is not None
