"""What becomes of saves in the background, with futures in place of torchtitan's manager."""

from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

from titan.weights.saver import CheckpointSaver
from titanflow.common.errors import StageFailed


class Manager:
    """Saves a folder at once and leaves the future that a test then settles."""

    def __init__(self, folder):
        self.folder = folder
        self.interval = 10
        self.save_future = None
        self.saved = []
        self.keep_latest_k = 0
        self.purge_queue = SimpleQueue()

    def save(self, step, last_step=False):
        self.saved.append((step, last_step, self.interval))
        (self.folder / f"step-{step}").mkdir(parents=True)
        self.save_future = Future()


@pytest.fixture
def saver(tmp_path, monkeypatch):
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "barrier", lambda: None)
    config = SimpleNamespace(interval=10, enable_first_step_checkpoint=False, last_save_model_only=False)
    return CheckpointSaver(Manager(tmp_path / "checkpoint"), tmp_path / "checkpoint", config)


def fail(future, error):
    future.set_exception(error)


def test_each_interval_and_the_last_step_are_saved_once(saver):
    for step in (1, 10, 10, 15):
        saver.save_if_due(step, last=step == 15)
        if saver.manager.save_future:
            saver.manager.save_future.done() or saver.manager.save_future.set_result(None)
    # torchtitan's own interval has no say: a save that was decided on is made.
    assert saver.manager.saved == [(10, False, 1), (15, True, 1)]
    assert (saver.saved_step, saver.manager.interval) == (15, 10)


def test_the_kept_step_is_saved_though_it_is_not_due_and_outlives_the_newest_few(saver):
    manager = Manager(saver.folder)
    manager.keep_latest_k = 2
    kept = CheckpointSaver(manager, saver.folder, saver.config, kept_step=15)
    # torchtitan's own purge would take the kept one.
    assert manager.keep_latest_k == 0
    for step in (10, 15, 20, 30, 31, 40):
        kept.save_if_due(step)
        manager.save_future.done() or manager.save_future.set_result(None)
    assert [step for step, _, _ in manager.saved] == [10, 15, 20, 30, 40]
    removed = [Path(manager.purge_queue.get()).name for _ in range(manager.purge_queue.qsize())]
    assert sorted(set(removed)) == ["step-10", "step-20"]


def test_a_checkpoint_of_an_interruption_takes_no_place_of_one_that_is_due(saver):
    manager = Manager(saver.folder)
    manager.keep_latest_k = 2
    kept = CheckpointSaver(manager, saver.folder, saver.config)
    left = []
    for step in (10, 20, 23, 26, 30, 40, 50):
        kept.save(step)
        manager.save_future.set_result(None)
        while not manager.purge_queue.empty():
            Path(manager.purge_queue.get()).rmdir()
        left.append(sorted(int(path.name.removeprefix("step-")) for path in saver.folder.iterdir()))
    assert left == [[10], [10, 20], [10, 20, 23], [10, 20, 23, 26], [20, 26, 30], [30, 40], [40, 50]]


def test_a_failure_in_the_background_names_the_save_that_failed_and_its_cause(saver):
    saver.save(10)
    assert not saver.has_failed
    fail(saver.manager.save_future, CheckpointException("save", {0: (PermissionError(13, "Permission denied"), None)}))
    assert saver.has_failed
    with pytest.raises(StageFailed, match=r"step-10: the checkpoint could not be saved: PermissionError") as raised:
        saver.save(20)
    assert "Permission denied" in str(raised.value)
    assert [step for step, _, _ in saver.manager.saved] == [10]
    assert list(saver.folder.iterdir()) == []


def test_whoever_waits_learns_of_a_failure_of_any_kind(saver):
    saver.save(10)
    fail(saver.manager.save_future, RuntimeError("the process that saves has died"))
    with pytest.raises(StageFailed, match="the process that saves has died"):
        saver.wait()


def test_without_a_save_there_is_nothing_to_wait_for(saver):
    saver.wait()
    assert not saver.has_failed
