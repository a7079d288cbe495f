import inspect

import pytest
import torch.distributed.checkpoint as dcp
from torchtitan.components import checkpoint

from titan.patches.lone_checkpoint import PATCH, LoneCheckpoint
from titan.patches.patch import PatchContext


@pytest.fixture
def patched(monkeypatch):
    monkeypatch.setattr(checkpoint, "dcp", dcp)
    PATCH.apply(PatchContext())
    return checkpoint.dcp


def test_torchtitan_still_asks_ranks_that_are_not_there():
    manager = inspect.getsource(checkpoint.CheckpointManager)
    assert "dcp.save(" in manager
    assert "no_dist" not in manager


def test_it_is_for_one_process_on_a_cpu(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not PATCH.needed()


def test_saving_and_loading_use_no_collectives(patched, monkeypatch):
    calls = []
    monkeypatch.setattr(dcp, "save", lambda *arguments, **options: calls.append(options))
    monkeypatch.setattr(dcp, "async_save", lambda *arguments, **options: calls.append(options))
    monkeypatch.setattr(dcp, "load", lambda *arguments, **options: calls.append(options))
    lone = LoneCheckpoint(dcp)
    lone.save({}, checkpoint_id="x")
    lone.async_save({}, checkpoint_id="x")
    lone.load({}, checkpoint_id="x")
    assert [call["no_dist"] for call in calls] == [True, True, True]


def test_everything_else_is_torchs_own_and_twice_is_once(patched):
    assert patched.FileSystemReader is dcp.FileSystemReader
    PATCH.apply(PatchContext())
    assert checkpoint.dcp is patched
