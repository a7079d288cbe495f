"""``work_group`` and ``user_name``: where a run says whose it is, and that nothing else depends on it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from finished_without_training import finish
from tiny_experiment import write_tiny_experiment

from titanflow.common.errors import ConfigError
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan
from titanflow.report.contents import read_contents
from titanflow.report.render import render_report
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import Manifest

WHO = {"work_group": "speech <b>", "user_name": "Größe"}


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    configs = write_tiny_experiment(tmp_path)
    return lambda *settings: make_plan("tiny", configs, overrides=settings)


def test_it_is_no_input_of_a_stage(planned: Callable[..., Plan], tmp_path: Path) -> None:
    finish(tmp_path / "configs")
    plan = planned("work_group=speech", "user_name=somebody else")
    assert {stage.state for stage in plan.stages} == {"CACHED"}
    assert {(stage.run.work_group, stage.run.user_name) for stage in plan.stages} == {("speech", "somebody else")}
    assert not [key for stage in plan.stages if stage.inputs for key in stage.inputs.values if "work_group" in key]


def test_the_manifest_names_who_ran_it_last(tmp_path: Path) -> None:
    for who in ({}, WHO, {"work_group": "", "user_name": "you"}):
        run = StageRun(stage="pretrain", experiment="e", run="main", folder=tmp_path / "pretrain", **who)
        Manifest.open(tmp_path).record_start(run)
        manifest = Manifest.open(tmp_path)
        assert (manifest.work_group, manifest.user_name) == (run.work_group, run.user_name)


def test_it_stands_at_the_report_s_head(planned: Callable[..., Plan]) -> None:
    plan = planned("work_group='speech <b>'", "user_name=Größe")
    plan.write()
    assert {key: json.loads((plan.folder / "plan.json").read_text())[key] for key in WHO} == WHO
    head = render_report(plan.folder).partition("</h1>")[2].partition("<h2>")[0]
    assert '<p class="note">speech &lt;b&gt; · Größe</p>' in head
    # What the manifest says is who ran it.
    (plan.folder / "manifest.json").write_text(json.dumps({"user_name": "you"}))
    assert read_contents(plan.folder).manifest.user_name == "you"


@pytest.mark.parametrize("key", ["work_group", "user_name"])
@pytest.mark.parametrize(("text", "is_tag"), [("x" * 64, True), ("x" * 65, False), ('"a\\nb"', False), ('""', True)])
def test_what_cannot_be_a_tag_is_refused(planned: Callable[..., Plan], key: str, text: str, is_tag: bool) -> None:
    if is_tag:
        planned(f"{key}={text}")
        return
    with pytest.raises(ConfigError, match=rf"{key}: found .*\n.*expected: a line of at most 64 characters"):
        planned(f"{key}={text}")
