import logging
from types import SimpleNamespace

import pytest

from tasks.ui import progress
from tasks.ui.progress import Progress
from tasks.ui.standing import beside_the_ring, clock, describe, thousands
from titanflow.runs.contract import StageRun
from titanflow.runs.results import PublishResult


class Artifacts:
    """Stands in for the stage's artifacts and notes the calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, stage, logger):
        return self

    def __getattr__(self, name):
        return lambda *args: self.calls.append((name, *args))

    def named(self, name):
        return [args for called, *args in self.calls if called == name]


@pytest.fixture
def artifacts(monkeypatch):
    artifacts = Artifacts()
    monkeypatch.setattr(progress, "Artifacts", artifacts)
    return artifacts


@pytest.fixture
def unpaced(monkeypatch):
    for pace in ("LINE_SECONDS", "LINE_SHARE", "RING_SECONDS"):
        monkeypatch.setattr(progress, pace, 0.0)


def followed(folder, stage="pretrain", **config):
    run = StageRun(stage=stage, experiment="stdlib", run="main", folder=folder, config=config)
    return Progress(run, logging.getLogger("test"))


def test_the_ring_moves_from_nothing_to_all(tmp_path, artifacts, unpaced):
    follow = followed(tmp_path, training={"steps": 200})
    follow([{"step": 1, "loss": 7.6}])
    follow([{"step": 99, "loss": 5}, {"step": 100, "loss": 5}])
    follow.finish(PublishResult(target="folder", location="here"))
    shown = artifacts.named("progress")
    assert [percent for percent, _ in shown] == [0.5, 50.0, 100.0]
    assert shown[0][1] == "step 1 of 200, loss 7.600"


def test_a_look_without_news_says_nothing(tmp_path, artifacts, caplog):
    caplog.set_level("INFO")
    followed(tmp_path, training={"steps": 200})([])
    assert (caplog.messages, artifacts.calls) == ([], [])


def test_one_line_a_look_with_the_newest_step(tmp_path, artifacts, unpaced, caplog):
    caplog.set_level("INFO")
    follow = followed(tmp_path, training={"steps": 200})
    follow([{"step": 1, "loss": 7.6}, {"step": 2, "loss": 7.5}])
    assert caplog.messages == ["pretrain step 2/200 loss 7.500"]
    follow([{"step": 3, "loss": 7.25}, {"step": 3, "validation_loss": 7.3}])
    assert caplog.messages[1].startswith("pretrain step 3/200 loss 7.250 validation loss 7.300, ")
    assert caplog.messages[1].endswith(" left")


def test_what_comes_too_soon_is_told_with_the_next_line_and_at_the_end(tmp_path, artifacts, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(progress, "LINE_SECONDS", 10.0)
    monkeypatch.setattr(progress, "RING_SECONDS", 30.0)
    monkeypatch.setattr(progress, "LINE_SHARE", 2.0)
    clock = iter([0.0, 5.0, 11.0, 25.0, 34.0, 36.0, 37.0])
    # The module's own: the clock of all would run out in the threads of servers that other tests started.
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    follow = followed(tmp_path, training={"steps": 200})
    follow([{"step": 1, "loss": 7.6}])
    follow([{"step": 2, "loss": 7.5}])
    follow([{"step": 2, "validation_loss": 7.3}])
    follow([{"step": 3, "loss": 7.4}])
    follow([{"step": 4, "loss": 7.3}])
    follow([{"step": 200, "loss": 5}])
    follow.finish(PublishResult(target="folder", location="here"))
    # Ten seconds apart, and twice the time so far: after the line at 11 s the next one may come at 33 s.
    assert [message.split(",")[0] for message in caplog.messages] == [
        "pretrain step 1/200 loss 7.600",
        "pretrain step 2/200 loss 7.500 validation loss 7.300",
        "pretrain step 4/200 loss 7.300",
        "pretrain step 200/200 loss 5.000",
    ]
    assert caplog.messages[1].endswith(", 36:18 left")
    # The ring moves at the first look, every thirty seconds, and at the end.
    assert [percent for percent, _ in artifacts.named("progress")] == [0.5, 2.0, 100.0]


def test_an_evaluation_brings_its_own_count(tmp_path, artifacts, caplog):
    caplog.set_level("INFO")
    record = {"step": 2, "steps": 8, "model": "sft", "task": "kind", "scores": {"acc": 0.93, "acc_stderr": 0.01}}
    followed(tmp_path, stage="evaluate")([record])
    assert caplog.messages == ["evaluate step 2/8 sft kind acc 0.93"]
    assert artifacts.named("progress") == [[25.0, "step 2 of 8, sft kind"]]


def test_results_and_the_curve_are_left_at_the_end(tmp_path, artifacts):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 7.6}\n{"step": 2, "loss": 7.5}\n')
    followed(tmp_path).finish(PublishResult(target="hub", repo_id="a/b", tag="v1", location="https://hub.example/a/b"))
    assert artifacts.named("table")[0][0] == "results"
    ((what, picture, _),) = artifacts.named("image")
    assert what == "loss"
    assert picture.startswith("data:image/svg+xml")
    assert artifacts.named("link") == [["published", "https://hub.example/a/b", "Published: a/b v1"]]


def test_a_full_line():
    record = {"step": 120, "loss": 3.21, "learning_rate": 1e-3, "tokens_per_second": 38_123.0}
    assert describe("pretrain", record, 300, 41.2) == (
        "pretrain step 120/300 loss 3.210 lr 1.0e-03 38k tok/s, 0:41 left"
    )
    assert describe("pretrain", {"step": 1200}, None, None) == "pretrain step 1,200"


def test_where_a_training_stands():
    record = {"step": 120, "loss": 3.21, "tokens": 122_880, "tokens_per_second": 38_123.0}
    stands = "step 120 of 300, 123k tokens, loss 3.210, 38k tokens/s"
    assert beside_the_ring(record, 300, 41.2) == f"{stands}, 0:41 left"
    assert beside_the_ring(record, 300, None) == stands
    assert beside_the_ring(record, 120, 0.0).endswith(", done")


def test_short_numbers():
    numbers = {0: "0", 870: "870", 3_400: "3.4k", 38_123: "38k", 1_250_000: "1.2M", 15e9: "15B"}
    assert {number: thousands(number) for number in numbers} == numbers
    assert [clock(seconds) for seconds in (0, 41.2, 725, 10_800)] == ["0:00", "0:41", "12:05", "3:00:00"]
