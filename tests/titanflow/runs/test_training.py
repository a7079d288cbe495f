"""A training stage read from its folder."""

from pathlib import Path

import pytest
from finished_stage import write_outside_base

from titanflow.common.errors import DataError
from titanflow.runs.contract import StageRun
from titanflow.runs.training import Training, read_training


def begun(folder: Path, stage: str, base: Path | None = None) -> Path:
    """A stage's folder before it has finished."""
    StageRun(stage=stage, experiment="e", run="r", folder=folder, base=base).write()
    return folder


def test_a_stage_its_result_and_its_base_are_read(tmp_path: Path) -> None:
    base = write_outside_base(tmp_path / "pretrain")
    training = read_training(begun(tmp_path / "sft", "sft", base))

    assert (training.run.stage, training.result) == ("sft", None)
    assert training.base is not None
    assert training.base.result is not None
    assert training.base.result.step == 7
    assert training.base.base is None


def test_what_trains_nothing_is_no_training(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", begun(tmp_path / "evaluate", "evaluate")):
        assert Training.of(folder) is None
        with pytest.raises(DataError, match=r"(?s)no run\.yaml of a training.*expected: .*a training stage"):
            read_training(folder)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("run.yaml", "{", "/run\\.yaml: can't be read"),
        ("run.yaml", "[1]", "/run\\.yaml: can't be read"),
        ("run.yaml", "{folder: /, of_then: 1}", "/run\\.yaml: another version of titanflow wrote it"),
        ("result.json", "{", "/result\\.json: can't be read"),
        ("result.json", "{}", "/result\\.json: another version of titanflow wrote it"),
    ],
)
def test_files_that_cant_be_read_are_refused_with_their_folder(tmp_path: Path, name: str, text: str, told: str) -> None:
    folder = write_outside_base(tmp_path / "pretrain")
    (folder / name).write_text(text)

    with pytest.raises(DataError, match=f"{folder}{told}"):
        assert read_training(folder).result
