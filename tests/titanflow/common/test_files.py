from pathlib import Path

import pytest

from titanflow.common import files
from titanflow.common.files import write_text_atomically


def test_two_machines_may_write_one_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers have the same small process ids: here the other's write falls into the middle of the first one's."""
    path = tmp_path / "digests.json"
    written = iter([lambda: write_text_atomically(path, "the other's"), lambda: None])
    monkeypatch.setattr(files.os, "fsync", lambda file: next(written)())
    write_text_atomically(path, "mine")
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]
