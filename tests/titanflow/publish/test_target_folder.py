"""Where a model is to be published, looked at before anything is trained."""

import os
from pathlib import Path

import pytest
from finished_run import FinishedRun

from titanflow.common.errors import ConfigError
from titanflow.publish.publish import publish
from titanflow.publish.settings import read_settings


def write_odd_places(root: Path) -> None:
    (root / "file").touch()
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("loop")
    (root / "mine").mkdir()
    (root / "mine" / "thesis.tex").touch()
    (root / "export").mkdir()
    (root / "export" / "config.json").touch()
    (root / "empty").mkdir()


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("", "found ''"),
        (" ", "found ' '"),
        ("{root}/file", "file is not a folder"),
        ("{root}/pipe", "pipe is not a folder"),
        ("{root}/loop", "loop is not a folder"),
        ("{root}/file/model", "file is not a folder"),
        ("{root}/loop/model", "loop is not a folder"),
        ("{root}/mine", "mine holds files that were not published: thesis.tex"),
        ("{root}/export", "export holds files that were not published: config.json"),
        ("{run}/sft/mine", "lies in the folder of the stage sft"),
        ("{root}/" + "a" * 300, "can't be read: File name too long"),
    ],
)
def test_a_folder_that_can_t_be_published_to(finished: FinishedRun, tmp_path: Path, folder: str, says: str) -> None:
    """All of these were refused, or ended in a traceback, when the model was trained."""
    write_odd_places(tmp_path)
    run = finished.to_publish(folder=folder.format(root=tmp_path, run=finished.root))
    run.origins["folder"] = "publish.yaml:3"
    with pytest.raises(ConfigError) as caught:
        read_settings(run)
    assert str(caught.value).startswith("publish.yaml:3: publish.folder: ")
    assert says in str(caught.value)


@pytest.mark.parametrize("folder", ["{root}/empty", "{root}/new/model", "{run}/publish/other"])
def test_a_folder_that_can(finished: FinishedRun, tmp_path: Path, folder: str) -> None:
    write_odd_places(tmp_path)
    assert read_settings(finished.to_publish(folder=folder.format(root=tmp_path, run=finished.root)))


def test_what_was_published_there_is_no_obstacle(finished: FinishedRun, tmp_path: Path) -> None:
    run = finished.to_publish(folder=str(tmp_path / "model"))
    publish(run)
    assert read_settings(run)


def test_a_folder_without_rights(finished: FinishedRun, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    user = os.geteuid()
    try:
        if user == 0:  # to whom every folder is open
            os.seteuid(65534)
        with pytest.raises(ConfigError, match=r"nothing can be written into|can't be read: Permission denied"):
            read_settings(finished.to_publish(folder=str(closed / "model")))
    finally:
        os.seteuid(user)
        closed.chmod(0o700)
