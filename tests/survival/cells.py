"""The rows of the matrix's table."""

from dataclasses import dataclass

import pytest

NOT_APPLICABLE = "–"


@dataclass
class Cell:
    """A row of the table."""

    stage: str
    event: str
    orphans: str = NOT_APPLICABLE
    checkpoint: str = NOT_APPLICABLE
    state: str = NOT_APPLICABLE
    seconds: str = NOT_APPLICABLE
    cause: str = NOT_APPLICABLE
    losses: str = NOT_APPLICABLE

    def row(self) -> dict[str, str]:
        """The columns' titles and values."""
        titles = ("stage", "event", "orphans", "checkpoint kept", "state", "seconds to it", "cause", "resumed loss")
        return dict(zip(titles, vars(self).values(), strict=True))


CELLS = pytest.StashKey[list[Cell]]()
"""Where a test session keeps them."""
