"""The rows of what was tried, and where they are written: as markdown and as JSON."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

NOT_APPLICABLE = "–"
PACKAGES = ("titanflow", "torch", "torchtitan", "prefect")


@dataclass
class Row:
    """What came of an event. ``seconds`` count from the event to the state, ``trains`` to the next step trained."""

    event: str
    state: str = NOT_APPLICABLE
    seconds: str = NOT_APPLICABLE
    trains: str = NOT_APPLICABLE
    orphans: str = NOT_APPLICABLE
    jobs_left: str = NOT_APPLICABLE
    doubled: str = NOT_APPLICABLE
    checkpoint: str = NOT_APPLICABLE
    losses: str = NOT_APPLICABLE
    cause: str = NOT_APPLICABLE


@dataclass
class Record:
    """A table of a session, and sentences that say what came of the random kills."""

    rows: list[Row] = field(default_factory=list)
    kills: list[str] = field(default_factory=list)

    def write(self, path: Path, command: Sequence[str]) -> None:
        """Markdown to ``path``, and the same as JSON beside it."""
        about = {
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores for both nodes",
            "slurm": subprocess.run(
                ["dpkg-query", "--show", "slurmctld"], capture_output=True, text=True
            ).stdout.strip(),
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES if _is_installed(name)},
            "command": " ".join(command),
        }
        titles = [name.replace("_", " ") for name in asdict(Row(""))]
        lines = [titles, ["---"] * len(titles), *([str(value) for value in asdict(row).values()] for row in self.rows)]
        table = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
        head = "".join(f"- {name}: {value}\n" for name, value in about.items())
        kills = "".join(f"- {line}\n" for line in self.kills)
        path.write_text(f"{head}\n{table if self.rows else ''}\n{kills}")
        found = {"about": about, "rows": [asdict(row) for row in self.rows], "kills": self.kills}
        path.with_suffix(".json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except ImportError:
        return False
    return True


RECORD = pytest.StashKey[Record]()
"""Where a test session keeps it."""
