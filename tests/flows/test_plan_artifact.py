import logging

import pytest
from finished_without_training import finish
from tiny_experiment import write_tiny_experiment

from flows import plan_artifact
from flows.plan_artifact import show_plan
from titanflow.planning.plan import make_plan


@pytest.fixture
def stale(tmp_path):
    configs = write_tiny_experiment(tmp_path)
    finish(configs)
    return make_plan("tiny", configs, overrides=["sft.optimizer.lr=0.5"])


def test_the_artifact_says_what_will_run_what_changed_and_what_it_takes(stale, monkeypatch):
    made = []
    monkeypatch.setattr(plan_artifact, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(plan_artifact, "create_markdown_artifact", lambda text, **options: made.append((text, options)))
    show_plan(stale)
    ((text, options),) = made
    assert options["key"] == "plan"
    assert "| pretrain | CACHED | nothing changed |" in text
    assert "| sft | sft.optimizer.lr | 0.01 | 0.5 | --set sft.optimizer.lr=0.5 |" in text
    assert "### Forecast" in text
    assert "| sft | ~" in text
    assert "| pretrain | ~" not in text


def test_a_ui_that_is_away_costs_nothing(stale, monkeypatch, caplog):
    def refuse(*arguments, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(plan_artifact, "create_markdown_artifact", refuse)
    for module in (plan_artifact,):
        monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("test"))
    show_plan(stale)
    assert "no route" in caplog.text
