import logging
from uuid import uuid4

import pytest

from tasks import progress
from tasks.progress import Progress, clock, describe, thousands
from titanflow.stage import PublishResult, StageRun


class Artifacts:
    """Stands in for Prefect's artifact functions and notes the calls; raises while ``down``."""

    def __init__(self):
        self.calls = []
        self.down = False

    def note(self, name):
        def call(*args, **kwargs):
            if self.down:
                raise ConnectionError("All connection attempts failed")
            self.calls.append((name, args, kwargs))
            return uuid4()

        return call

    def named(self, name):
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


@pytest.fixture
def artifacts(monkeypatch):
    artifacts = Artifacts()
    for name in ("create_progress", "update_progress", "create_table", "create_image"):
        monkeypatch.setattr(progress, f"{name}_artifact", artifacts.note(name))
    return artifacts


def followed(folder, stage="pretrain", **config):
    run = StageRun(stage=stage, experiment="stdlib", run="main", folder=folder, config=config)
    return Progress(run, logging.getLogger("test"))


def test_the_ring_moves_from_nothing_to_all(tmp_path, artifacts):
    follow = followed(tmp_path, training={"steps": 200})
    follow([{"step": 1, "loss": 7.6}])
    follow([{"step": 99, "loss": 5}, {"step": 100, "loss": 5}])
    follow.finish(PublishResult(target="folder", location="here"))
    ((args, kwargs),) = artifacts.named("create_progress")
    assert args == (0.5,)
    assert kwargs["key"] == "pretrain-progress"
    assert [args[1] for args, _ in artifacts.named("update_progress")] == [50.0, 100.0]


def test_a_look_without_news_says_nothing(tmp_path, artifacts, caplog):
    caplog.set_level("INFO")
    followed(tmp_path, training={"steps": 200})([])
    assert (caplog.messages, artifacts.calls) == ([], [])


def test_one_line_a_look_with_the_newest_step(tmp_path, artifacts, caplog):
    caplog.set_level("INFO")
    follow = followed(tmp_path, training={"steps": 200})
    follow([{"step": 1, "loss": 7.6}, {"step": 2, "loss": 7.5}])
    assert caplog.messages == ["pretrain step 2/200 loss 7.500"]
    follow([{"step": 3, "loss": 7.25}, {"step": 3, "validation_loss": 7.3}])
    assert caplog.messages[1].startswith("pretrain step 3/200 loss 7.250 validation loss 7.300, ")
    assert caplog.messages[1].endswith(" left")


def test_an_evaluation_brings_its_own_count(tmp_path, artifacts, caplog):
    caplog.set_level("INFO")
    record = {"step": 2, "steps": 8, "model": "sft", "task": "kind", "scores": {"acc": 0.93, "acc_stderr": 0.01}}
    followed(tmp_path, stage="evaluate")([record])
    assert caplog.messages == ["evaluate step 2/8 sft kind acc 0.93"]
    assert artifacts.named("create_progress")[0][0] == (25.0,)


def test_a_ui_that_is_away_is_told_once_and_costs_nothing(tmp_path, artifacts, caplog):
    artifacts.down = True
    follow = followed(tmp_path, training={"steps": 200})
    follow([{"step": 1, "loss": 7.6}])
    follow([{"step": 2, "loss": 7.5}])
    follow.finish(PublishResult(target="folder", location="here"))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["Prefect's artifacts can't be updated (All connection attempts failed); pretrain goes on"]


def test_a_ui_that_comes_back_is_used_again(tmp_path, artifacts, monkeypatch):
    monkeypatch.setattr(progress, "UI_PAUSE_SECONDS", 0.0)
    artifacts.down = True
    follow = followed(tmp_path, training={"steps": 200})
    follow([{"step": 1, "loss": 7.6}])
    artifacts.down = False
    follow([{"step": 100, "loss": 7.5}])
    assert artifacts.named("create_progress")[0][0] == (50.0,)


def test_results_and_the_curve_are_left_at_the_end(tmp_path, artifacts):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 7.6}\n{"step": 2, "loss": 7.5}\n')
    followed(tmp_path).finish(PublishResult(target="folder", location="here"))
    assert artifacts.named("create_table")[0][1]["key"] == "pretrain-results"
    ((args, kwargs),) = artifacts.named("create_image")
    assert args[0].startswith("data:image/svg+xml")
    assert kwargs["key"] == "pretrain-loss"


def test_a_full_line():
    record = {"step": 120, "loss": 3.21, "learning_rate": 1e-3, "tokens_per_second": 38_123.0}
    assert describe("pretrain", record, 300, 41.2) == (
        "pretrain step 120/300 loss 3.210 lr 1.0e-03 38k tok/s, 0:41 left"
    )
    assert describe("pretrain", {"step": 1200}, None, None) == "pretrain step 1,200"


def test_short_numbers():
    assert [thousands(number) for number in (0, 870, 3_400, 38_123, 1_250_000)] == ["0", "870", "3.4k", "38k", "1.2M"]
    assert [clock(seconds) for seconds in (0, 41.2, 725, 10_800)] == ["0:00", "0:41", "12:05", "3:00:00"]
