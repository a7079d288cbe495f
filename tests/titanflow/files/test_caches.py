"""Where libraries write is somewhere else if the home folder can't be written."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from titanflow.common.errors import ConfigError
from titanflow.files.caches import READ, WRITTEN, cache_folder, can_be_written, move_unwritable


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files; no variable names another."""
    for name in (*WRITTEN, *READ, "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def below_a_file(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder that not even root can make."""
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "home"
    monkeypatch.setenv("HOME", str(home))
    return home


def test_a_home_that_can_be_written_is_left_alone(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "is made when it is needed"))
    assert move_unwritable() == ""
    assert not [name for name in (*WRITTEN, *READ) if name in os.environ]
    assert list(temporary.iterdir()) == []
    assert cache_folder() == tmp_path / "is made when it is needed/.cache/titanflow"


def test_without_a_home_all_of_it_is_among_the_temporary_files(below_a_file: Path, temporary: Path) -> None:
    place = temporary / f"titanflow-{os.getuid()}"
    said = move_unwritable()
    assert said.startswith("~/.cache, ")
    assert said.endswith(f"can't be written and are in {place} instead")
    assert os.environ["PREFECT_HOME"] == f"{place}/.prefect"
    assert cache_folder() == place / ".cache/titanflow"
    assert all(can_be_written(os.environ[name]) for name in WRITTEN)
    assert not [name for name in READ if name in os.environ]
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    # A process that is started by this one, and the next run, find the same place.
    assert move_unwritable() == ""


def test_what_is_named_stays_where_it_is(
    below_a_file: Path, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in WRITTEN:
        monkeypatch.setenv(name, str(tmp_path / name))
    assert move_unwritable() == ""
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "PREFECT_HOME")
    assert list(temporary.iterdir()) == []


def test_what_can_only_be_read_is_read_there(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for file in READ.values():
        path = tmp_path / file.removeprefix("~/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    # Root may write everywhere.
    monkeypatch.setattr("titanflow.files.caches.can_be_written", lambda folder: False)
    move_unwritable()
    assert {name: os.environ[name] for name in READ} == {
        name: str(tmp_path / file.removeprefix("~/")) for name, file in READ.items()
    }


@pytest.mark.parametrize("spoil", [lambda place: place.chmod(0o777), lambda place: place.rmdir() or place.touch()])
def test_a_place_that_others_may_write_is_refused(below_a_file: Path, temporary: Path, spoil) -> None:
    place = temporary / f"titanflow-{os.getuid()}"
    place.mkdir()
    spoil(place)
    with pytest.raises(ConfigError, match=rf"^HOME: found {below_a_file}, which can't be written, and {place} can't"):
        move_unwritable()
    assert "PREFECT_HOME" not in os.environ


def test_which_folders_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert can_be_written(tmp_path / "a/b/c")
    assert not can_be_written(tmp_path / "file")
    assert not can_be_written(tmp_path / "file/a")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not can_be_written(tmp_path / "a")
