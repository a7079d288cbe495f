import logging
import math
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torchtitan.components.metrics import _get_metrics_rank
from torchtitan.config import JobConfig
from torchtitan.distributed import ParallelDims

from titan.tracking.loggers import ForgivingLoggers
from titan.tracking.measures import system
from titan.tracking.metrics import StageMetrics, perplexity
from titanflow.common.errors import StageFailed
from titanflow.runs.torchrun import metrics_rank


@pytest.fixture
def dims(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield ParallelDims(dp_shard=1, dp_replicate=1, cp=1, tp=1, pp=1, ep=1, etp=1, world_size=1)
    dist.destroy_process_group()


class Recorder(ForgivingLoggers):
    def __init__(self):
        super().__init__()
        self.begun = []
        self.logged = []

    def begin(self, rows):
        self.begun.append(rows)

    def log(self, metrics, step):
        self.logged.append((step, metrics))


@pytest.fixture
def metrics(dims, tmp_path, monkeypatch):
    """Without other measures, which may ask a stage for its model."""
    monkeypatch.setattr("titan.tracking.metrics.MEASURES", {"system": system})
    config = JobConfig()
    config.job.dump_folder = str(tmp_path)
    config.metrics.log_freq = 10
    config.training.steps = 25
    processor = StageMetrics(config, dims, Recorder())
    processor.num_flops_per_token = 1000
    processor.data_loading_times = [0.0]
    return processor


def add_losses(metrics, *losses):
    metrics.begin_step()
    for loss, tokens in losses:
        metrics.add_loss(torch.tensor(loss), torch.tensor(tokens))


def log(metrics, step, loss=2.0, tokens=640):
    metrics.ntokens_since_last_log = metrics.trained_tokens = 64
    add_losses(metrics, (loss * 64, 64))
    metrics.log(step, loss, loss, 0.5, {"lr": 1e-3, "n_tokens_seen": tokens})


def lines(metrics):
    return metrics.file.records()


def test_perplexity_is_bounded():
    assert perplexity(1.0) == pytest.approx(math.e)
    assert perplexity(20.0) == perplexity(1e9) == pytest.approx(math.exp(20))


def test_a_step_is_recorded_and_named_for_the_loggers(metrics):
    metrics.begin(0)
    log(metrics, 10)
    (record,) = lines(metrics)
    assert (record["step"], record["loss"], record["learning_rate"], record["tokens"]) == (10, 2.0, 1e-3, 640)
    ((step, named),) = metrics.logger.logged
    assert step == 10
    assert named["train/perplexity"] == pytest.approx(math.exp(2))
    assert set(named) == {
        "tokens",
        *(f"train/{key}" for key in ("loss", "perplexity", "max_loss", "learning_rate", "grad_norm")),
        "train/tokens_per_second",
        *(f"system/{key}" for key in ("memory_active_gib", "memory_reserved_gib", "data_loading_percent")),
    }
    assert not any("mfu" in key for key in named)
    assert metrics.ntokens_since_last_log == metrics.trained_tokens == 0


def test_mfu_is_there_where_the_peak_is_known(metrics):
    metrics.gpu_peak_flops = 1e9
    metrics.begin(0)
    log(metrics, 10)
    (record,) = lines(metrics)
    assert record["mfu"] == pytest.approx(100 * 1000 * record["tokens_per_second"] / 1e9)


def test_trained_tokens_are_told_where_they_differ(metrics, caplog):
    caplog.set_level(logging.INFO)
    metrics.begin(0)
    metrics.ntokens_since_last_log, metrics.trained_tokens = 64, 16
    add_losses(metrics, (32.0, 16))
    metrics.log(10, 2.0, 2.0, 0.5, {"lr": 1e-3, "n_tokens_seen": 64})
    (record,) = lines(metrics)
    assert record["trained_tokens_per_second"] == pytest.approx(record["tokens_per_second"] / 4)
    assert f"({record['trained_tokens_per_second']:,.0f} trained)" in caplog.text


def test_case_30_the_highest_mean_loss_is_that_of_all_microbatches_and_never_nan(metrics):
    """torchtitan's own is NaN where a rank had no trained token."""
    metrics.begin(0)
    add_losses(metrics, (32.0, 10), (4.0, 2), (0.0, 0))
    metrics.log(10, 3.0, math.nan, 0.5, {"lr": 1e-3, "n_tokens_seen": 64})
    ((_, named),) = metrics.logger.logged
    assert named["train/max_loss"] == pytest.approx(3.0)
    add_losses(metrics, (0.0, 0))
    assert metrics._max_loss_of_ranks() == -math.inf


def test_a_resume_drops_the_steps_after_its_checkpoint_and_lets_the_clock_go_on(metrics):
    metrics.begin(0)
    for step in (1, 10, 20):
        log(metrics, step)
    metrics.log_validation(2.0, 20)
    metrics.begin(10)
    assert list(metrics.logger.begun[-1]) == [1, 10]
    assert [line["step"] for line in lines(metrics)] == [1, 10]
    assert not metrics.is_validated(20)
    log(metrics, 20)
    seconds = [line["seconds"] for line in lines(metrics)]
    assert seconds == sorted(seconds)
    metrics.log_validation(2.0, 20)
    metrics.begin(20)
    assert metrics.is_validated(20)


def test_a_validation_is_a_line_of_its_own(metrics):
    metrics.begin(0)
    metrics.tokens = lambda: 640
    metrics.log_validation(1.5, 10)
    (record,) = lines(metrics)
    assert (record["step"], record["validation_loss"], record["tokens"]) == (10, 1.5, 640)
    assert record["validation_perplexity"] == pytest.approx(math.exp(1.5))
    assert metrics.logger.logged[0][1] == {
        "tokens": 640,
        "val/loss": 1.5,
        "val/perplexity": pytest.approx(math.exp(1.5)),
    }


def test_case_30_a_validation_loss_that_is_no_number_is_told_and_left_out(metrics, caplog):
    metrics.begin(0)
    metrics.log_validation(math.nan, 10)
    assert lines(metrics) == metrics.logger.logged == []
    assert "validate step: 10  the loss is nan, and not recorded" in caplog.text


def test_a_measure_that_is_no_number_is_named_and_left_out(metrics, caplog, monkeypatch):
    measured = SimpleNamespace(measure=lambda stage: {"norm": math.nan, "rank": 2.0})
    monkeypatch.setattr("titan.tracking.metrics.MEASURES", {"weights": measured})
    metrics.routers = lambda: {"share": math.inf}
    metrics.begin(0)
    log(metrics, 10)
    (record,) = lines(metrics)
    assert record["weights"] == {"rank": 2.0}
    assert "router" not in record
    assert "weights/norm is nan, and not recorded" in caplog.text
    assert "router/share is inf, and not recorded" in caplog.text


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_training_that_has_diverged_ends_with_a_reason(metrics, loss):
    metrics.begin(0)
    with pytest.raises(StageFailed, match=r"step 10: the loss is (nan|inf).*optimizer\.lr"):
        log(metrics, 10, loss=loss)
    assert not metrics.file.path.exists()


def test_the_first_each_nth_and_the_last_step_are_logged(metrics):
    assert [step for step in range(1, 26) if metrics.should_log(step)] == [1, 10, 20, 25]


@pytest.mark.parametrize("schedule", ["1F1B", "ZBVZeroBubble"])
@pytest.mark.parametrize(("ranks", "stages"), [(1, 1), (8, 1), (8, 2), (16, 4), (512, 8)])
def test_torchrun_shows_the_rank_that_torchtitan_lets_record(ranks, stages, schedule):
    config = JobConfig()
    config.parallelism.pipeline_parallel_schedule = schedule
    dims = SimpleNamespace(pp_enabled=stages > 1, pp=stages, world_size=ranks)
    known = {"pipeline_parallel_degree": stages, "pipeline_parallel_schedule": schedule}
    assert metrics_rank({"parallelism": known}, ranks) == _get_metrics_rank(dims, config)
