import pytest
from torchtitan.config import JobConfig

from titan.tracking.loggers import ForgivingLoggers, stage_loggers
from titan.tracking.tensorboard_logger import TensorBoardLogger
from titan.tracking.wandb_logger import WandbLogger
from titanflow.runs.contract import StageRun


class Counter:
    name = "Counter"

    def __init__(self):
        self.logged = []
        self.closed = False

    def begin(self, rows):
        self.logged += rows.items()

    def log(self, metrics, step):
        self.logged.append((step, metrics))

    def close(self):
        self.closed = True


class Broken(Counter):
    name = "Broken"

    def log(self, metrics, step):
        super().log(metrics, step)
        raise ConnectionError("no network")


class NeverThere(Counter):
    name = "NeverThere"

    def begin(self, rows):
        raise ModuleNotFoundError("No module named 'wandb'")


def test_a_logger_that_fails_is_left_out_and_the_others_go_on(caplog):
    broken, whole = Broken(), Counter()
    loggers = ForgivingLoggers([broken, NeverThere(), whole])
    loggers.begin({1: {"train/loss": 2.0}})
    for step in (2, 3):
        loggers.log({"train/loss": 1.0}, step)
    loggers.close()
    assert [step for step, _ in broken.logged] == [1, 2]
    assert not broken.closed
    assert [step for step, _ in whole.logged] == [1, 2, 3]
    assert whole.closed
    assert "Broken failed and is left out from here on: no network" in caplog.text
    assert "NeverThere failed and is left out from here on: No module named 'wandb'" in caplog.text


def test_a_failure_is_told_without_the_password_in_its_address(caplog, monkeypatch):
    """requests' own errors quote the whole MLFLOW_TRACKING_URI."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret")

    class Tracker(Counter):
        def begin(self, rows):
            raise ConnectionError("API request to http://me:pass@mlflow.example/api failed, with Bearer s3cret")

    ForgivingLoggers([Tracker()]).begin({})
    assert "API request to http://[redacted]mlflow.example/api failed, with Bearer [redacted]" in caplog.text


@pytest.mark.parametrize(
    ("mode", "switches", "has_metrics", "expected"),
    [
        ("offline", {"enable_wandb": True, "enable_tensorboard": True}, True, [WandbLogger, TensorBoardLogger]),
        ("offline", {"enable_wandb": True, "enable_tensorboard": True}, False, []),
        ("disabled", {"enable_wandb": True}, True, []),
        ("online", {"enable_wandb": False, "enable_tensorboard": True}, True, [TensorBoardLogger]),
    ],
)
def test_what_the_config_and_the_mode_ask_for(tmp_path, monkeypatch, mode, switches, has_metrics, expected):
    monkeypatch.setenv("WANDB_MODE", mode)
    config = JobConfig()
    for name, value in switches.items():
        setattr(config.metrics, name, value)
    run = StageRun(stage="pretrain", experiment="test", run="test", folder=tmp_path)
    assert [type(one) for one in stage_loggers(run, config, has_metrics).inner] == expected
