from pathlib import Path

import pytest
from tiny_experiment import write_tiny_experiment


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """The configs of an experiment ``tiny`` that nothing has run yet; its workspace is ``runs`` beside them."""
    return write_tiny_experiment(tmp_path)
