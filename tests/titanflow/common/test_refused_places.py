"""A place that the system refuses is told as a message; any other error keeps its traceback."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from titanflow.cli.main import app
from titanflow.common.errors import ConfigError, refused_places


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.touch()
    return path


def test_a_folder_below_a_file(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"file/out: Not a directory\n    expected: a place"), refused_places():
        (file / "out").mkdir(parents=True)


def test_other_errors_stay(file: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"), refused_places():
        file.with_name("nothing").read_text(encoding="utf-8")
    with pytest.raises(ConnectionError), refused_places():
        raise ConnectionError("no answer")


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = CliRunner().invoke(app, ["plan", "stdlib"])
    assert (done.exit_code, "the folder that this is run in is gone" in done.stderr) == (2, True), done.stderr
