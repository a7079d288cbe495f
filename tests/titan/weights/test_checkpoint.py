import errno
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from titan.weights.checkpoint import (
    check_weights,
    complete_checkpoints,
    no_room,
    remove_incomplete,
    resume_point,
    save_failure,
    sound_resume_point,
)
from titanflow.common.errors import ConfigError
from titanflow.runs.checkpoints import complete_folders, invalidate, read_contents, stored_model

WEIGHTS = {"layers.0.w": torch.arange(6.0).reshape(2, 3), "norm": torch.ones(3)}


def save(folder, step, full=True):
    path = folder / f"step-{step}"
    state = {
        **WEIGHTS,
        **({"optimizer": {"state.norm": torch.zeros(3)}, "train_state": {"step": step}} if full else {}),
    }
    dcp.save(state, checkpoint_id=path, no_dist=True)
    return path


@pytest.fixture
def folder(tmp_path):
    for step in (5, 10):
        save(tmp_path, step)
    return tmp_path


def test_the_newest_complete_one_is_gone_on_from(folder):
    unfinished = save(folder, 15)
    (unfinished / ".metadata").unlink()
    assert [checkpoint.step for checkpoint in complete_checkpoints(folder)] == [10, 5]
    assert resume_point(folder, steps=20).step == 10
    assert resume_point(folder, steps=20).path == folder / "step-10"


def test_a_cut_off_data_file_or_metadata_does_not_count(folder):
    truncated = save(folder, 15)
    (data,) = truncated.glob("*.distcp")
    data.write_bytes(data.read_bytes()[:-1])
    torn = save(folder, 20)
    (torn / ".metadata").write_bytes((torn / ".metadata").read_bytes()[:40])
    lost = save(folder, 25)
    next(lost.glob("*.distcp")).unlink()
    assert resume_point(folder, steps=30).step == 10


HARMS = {
    "a data file cut off": ("*.distcp", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "a data file lost": ("*.distcp", lambda path: path.unlink()),
    "a data file of zeros": ("*.distcp", lambda path: path.write_bytes(bytes(path.stat().st_size))),
    "zeros at a data file's end": (
        "*.distcp",
        lambda path: path.write_bytes(path.read_bytes()[:-600] + bytes(600)),
    ),
    "metadata cut off": (".metadata", lambda path: path.write_bytes(path.read_bytes()[:40])),
    "metadata empty": (".metadata", lambda path: path.write_bytes(b"")),
    "metadata lost": (".metadata", lambda path: path.unlink()),
    "everything lost": ("*", lambda path: path.unlink(missing_ok=True)),
}


@pytest.mark.parametrize("harm", HARMS)
def test_half_of_a_checkpoint_is_never_loaded(tmp_path, harm, caplog):
    """The one before it is taken, a warning names it, and what was complete once is kept aside."""
    folder = tmp_path / "checkpoint"
    for step in (5, 10):
        save(folder, step)
    pattern, damaging = HARMS[harm]
    for path in list((folder / "step-10").glob(pattern)):
        damaging(path)
    with caplog.at_level("WARNING"):
        remove_incomplete(folder)
        assert sound_resume_point(folder, steps=20).step == 5
    assert str(folder / "step-10") in caplog.text
    assert dict(complete_folders(folder)).keys() == {5}
    was_interrupted = harm in ("metadata lost", "everything lost")
    assert (tmp_path / "damaged" / "step-10").exists() is not was_interrupted


def test_the_only_checkpoint_is_kept_though_it_is_damaged(tmp_path):
    folder = tmp_path / "checkpoint"
    (data,) = save(folder, 5).glob("*.distcp")
    data.write_bytes(bytes(data.stat().st_size))
    remove_incomplete(folder)
    assert sound_resume_point(folder, steps=20) is None
    # torchtitan starts from the base only where this folder isn't there.
    assert not folder.exists()
    assert (tmp_path / "damaged" / "step-5" / ".metadata").exists()


def test_an_older_one_that_was_half_removed_is_removed(tmp_path):
    folder = tmp_path / "checkpoint"
    for step in (5, 10):
        save(folder, step)
    next((folder / "step-5").glob("*.distcp")).unlink()
    remove_incomplete(folder)
    assert [path.name for path in folder.iterdir()] == ["step-10"]
    assert not (tmp_path / "damaged").exists()


def test_folders_that_are_no_steps_are_left_alone(folder):
    for name in ("step-7-old", "other", "step-x"):
        shutil.copytree(folder / "step-5", folder / name)
    assert [checkpoint.step for checkpoint in complete_checkpoints(folder)] == [10, 5]
    remove_incomplete(folder)
    assert (folder / "other").exists()


def test_without_a_checkpoint_training_starts_afresh(tmp_path):
    assert resume_point(tmp_path / "checkpoint", steps=10) is None


def test_what_interrupted_saves_left_is_removed(folder):
    invalidate(folder / "step-10")
    remove_incomplete(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["step-5"]
    invalidate(folder / "step-5")
    remove_incomplete(folder)
    assert not folder.exists()
    remove_incomplete(folder)


def test_a_model_alone_is_nothing_to_go_on_from(tmp_path):
    save(tmp_path, 10, full=False)
    assert next(complete_checkpoints(tmp_path)).full is False
    with pytest.raises(ConfigError, match="holds the model alone, and 5 steps are left"):
        resume_point(tmp_path, steps=15)
    save(tmp_path, 5)
    assert resume_point(tmp_path, steps=15).step == 5


def test_everything_a_checkpoint_holds_has_the_shape_that_was_saved(folder):
    model = {"layers.0.w": (2, 3), "norm": (3,)}
    assert read_contents(folder / "step-5").shapes == {**model, "optimizer.state.norm": (3,), "train_state.step": ()}
    assert stored_model(folder / "step-5") == model


def test_weights_must_be_exactly_the_models(folder):
    path = folder / "step-10"
    check_weights(path, WEIGHTS)
    with pytest.raises(ConfigError, match=r"lacks layers\.1\.w"):
        check_weights(path, {**WEIGHTS, "layers.1.w": torch.ones(1)})
    with pytest.raises(ConfigError, match="has norm, which the model lacks"):
        check_weights(path, {"layers.0.w": WEIGHTS["layers.0.w"]})
    with pytest.raises(ConfigError, match=r"has norm of shape \(3,\), the model's is \(4,\)"):
        check_weights(path, {**WEIGHTS, "norm": torch.ones(4)})


def test_an_incomplete_checkpoint_gives_no_weights(folder):
    invalidate(folder / "step-10")
    with pytest.raises(ConfigError, match="no complete checkpoint"):
        check_weights(folder / "step-10", WEIGHTS)


def test_a_failed_save_names_its_reason_and_what_is_left(folder):
    path = folder / "step-15"
    cause = PermissionError(errno.EACCES, "Permission denied", str(path))
    failure = save_failure(CheckpointException("save", {1: (cause, None)}), path)
    assert str(path) in str(failure)
    assert "PermissionError: [Errno 13] Permission denied" in str(failure)
    assert f"the last complete checkpoint is {folder / 'step-10'}" in str(failure)
    assert failure.exit_code == 1


def test_there_is_room_here(folder):
    assert no_room(folder / "step-10") == ""
