from pathlib import Path

import pytest
from reported_run import write_run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run."""
    return write_run(tmp_path / "main")
