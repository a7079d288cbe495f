from pathlib import Path

import pytest

from titanflow.checkpoints import complete_folders, step_folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, complete in (
        ("step-9", True),
        ("step-10", True),
        ("step-11", False),
        ("step-x", True),
        ("step-1.old", True),
    ):
        (tmp_path / name).mkdir()
        if complete:
            (tmp_path / name / ".metadata").touch()
    return tmp_path


def test_steps_are_numbers_and_the_newest_is_first(folder: Path) -> None:
    assert list(step_folders(folder)) == [11, 10, 9]


def test_a_save_that_was_cut_off_is_not_complete(folder: Path) -> None:
    assert list(complete_folders(folder).items()) == [(10, folder / "step-10"), (9, folder / "step-9")]


def test_no_folder_has_no_steps(tmp_path: Path) -> None:
    assert complete_folders(tmp_path / "nowhere") == {}
