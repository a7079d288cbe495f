"""A folder with the files of the examples, and the Hub that their bases come from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from example_files import write_files
from local_hub import LocalHub


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_files(folder)
    return folder


@pytest.fixture(scope="module")
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub
