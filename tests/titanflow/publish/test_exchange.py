import ctypes
import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from titanflow.publish.folder import exchange


def test_two_folders_change_places(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "old" / "new").exists()
    assert (tmp_path / "new" / "old").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "old", tmp_path / "new")


def refusing(*arguments: object) -> int:
    ctypes.set_errno(errno.EINVAL)
    return -1


@pytest.mark.parametrize("library", [SimpleNamespace(), SimpleNamespace(renameat2=refusing)])
def test_a_system_that_knows_no_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: object) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: library)
    assert not exchange(tmp_path / "old", tmp_path / "new")
