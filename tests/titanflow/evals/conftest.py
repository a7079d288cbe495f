"""Task folders, and an lm-eval with a few tasks in its library."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_library import LIBRARY, Write, forget, write_files

from titanflow.evals import known_names, library


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an lm-eval whose library is small, with an empty cache of its names."""
    package = tmp_path / "lm_eval"
    write_files(package, LIBRARY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "package_folder", lambda: package)
    monkeypatch.setattr(known_names, "package_folder", lambda: package)
    forget()
    yield package
    forget()


@pytest.fixture
def mine(tmp_path: Path) -> Write:
    """Writes a folder of one's own tasks."""
    return lambda files: write_files(tmp_path / "mine", files)
