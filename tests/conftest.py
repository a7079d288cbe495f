"""Puts this folder on the import path, and holds the experiment that whole-pipeline tests run."""

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli
from fast import Fast
from hypothesis import settings
from scheduling import SharedRuns
from tiny_experiment import write_tiny_experiment

# What a developer's shell says of Prefect, W&B or the Hub is not what is tested.
for name in list(os.environ):
    if name.startswith(("PREFECT_", "WANDB_", "HF_", "TITANFLOW_")):
        del os.environ[name]
os.environ["OMP_NUM_THREADS"] = "1"
# transformers copies a model's code there to import it, and two processes may copy at once.
MODULES = tempfile.TemporaryDirectory(prefix="transformers-modules-")
os.environ["HF_MODULES_CACHE"] = MODULES.name
# Each of a thousand processes would compile the whole project anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A shell starts its background jobs with SIGINT ignored, and what a test interrupts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# And nohup has SIGHUP ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# The same examples each time, however slow the machine; `--hypothesis-profile many` tries ten times as many.
settings.register_profile("few", max_examples=200, derandomize=True, deadline=None, database=None)
settings.register_profile("many", settings.get_profile("few"), max_examples=2000)
settings.load_profile("few")
# What a test writes need not outlast a loss of power, and a disk that others use takes milliseconds for each promise.
os.fsync = lambda file: None
# What collecting the tests imports stays: a million objects, and to look through them takes most of a second each time.
gc.disable()


@pytest.fixture(autouse=True)
def handlers_stay() -> Iterator[None]:
    """A command that a test calls in this process may answer signals, and what the next tests fork would inherit that.

    A worker of multiprocessing's pool that answers SIGTERM is never ended, and the pool waits for it without end.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--survival`` runs what takes half an hour: every event that ends a run, in every stage."""
    parser.addoption("--fast", action="store_true", help="run what starts no process and isn't slow: two minutes")
    parser.addoption("--survival", action="store_true", help="run tests/survival, which takes half an hour")
    parser.addoption("--cluster", action="store_true", help="run tests/cluster, in a Slurm that they start")
    parser.addoption("--cluster-matrix", action="store_true", help="run every event and random kills in that Slurm")
    parser.addoption("--cluster-table", metavar="FILE", help="write what came of them there, in markdown and JSON")
    parser.addoption("--kills", type=int, default=20, help="how many random kills")
    parser.addoption("--kills-seed", type=int, help="the seed of the random kills; unset, another each time")
    parser.addoption("--team", action="store_true", help="run tests/team, on PostgreSQL with three workers")
    parser.addoption("--image", metavar="TORCH_INDEX", help="build the image and try it, with torch from there")
    parser.addoption("--survival-table", metavar="FILE", help="write its table there, in markdown")


def pytest_configure(config: pytest.Config) -> None:
    """Not where xdist only hands tests out: it starts those that run them."""
    if config.getoption("--fast") and (hasattr(config, "workerinput") or not config.getoption("numprocesses")):
        config.pluginmanager.register(Fast())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedRuns:
    """Only where several processes run the tests."""
    return SharedRuns(config, log)


def pytest_collection_finish() -> None:
    """From here on garbage is looked for, only among what the tests themselves make."""
    gc.freeze()
    gc.enable()


@contextmanager
def kept_environment() -> Iterator[None]:
    """What a stage that runs inside of a test's process puts into the environment isn't the next test's."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Each test has an environment of its own."""
    with kept_environment():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    """A module's or session's fixture is set up before any test's environment is kept, so that what it puts there
    would stay for the whole process."""
    with nullcontext() if fixturedef.scope == "function" else kept_environment():
        return (yield)


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all: its first start takes ten seconds."""
    return tmp_path_factory.mktemp("prefect-home")


@pytest.fixture(scope="session")
def api(prefect_home: Path) -> Iterator[str]:
    """A Prefect server for all whose subject isn't the one that a run starts for itself: each start takes seconds."""
    from lasting_server import lasting_server

    with lasting_server(prefect_home) as url:
        yield url


@pytest.fixture
def shipped_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Hub has the bases that shipped experiments name, as they are published but for the weights."""
    from example_bases import publish_bases
    from local_hub import LocalHub
    from tiny_hub import talk_to

    with LocalHub() as hub:
        talk_to(hub, monkeypatch, tmp_path / "hub-cache")
        publish_bases(hub, is_tiny=False)
        yield


@pytest.fixture
def tiny(tmp_path: Path, prefect_home: Path) -> Cli:
    """The command line on a tiny experiment of the test's own."""
    return Cli(write_tiny_experiment(tmp_path / "tiny"), prefect_home)
