import errno
import json
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import ParameterTypeError
from prefect.runtime.flow_run import FIELDS
from small_plan import FAILS, HOLDS_BACK, IS_KILLED_ONCE, PREPARES, PUBLISHES, TRAINS, small_plan

from flows import pretrain_sft as module
from flows import run_plan
from flows.night import scheduled_day
from flows.parameters.settings import KNOBS
from flows.pretrain_sft import Summary, dated, pretrain_sft
from tasks.ui.labels import DELAY_LABEL, LOST_LABEL, PROCESS_LABEL, labelled_process_lives
from titanflow.common.errors import ConfigError, HubError, Problem, StageFailed
from titanflow.common.file_lock import held
from titanflow.config.files.schema import BOUNDS
from titanflow.config.module import stage_schema
from titanflow.planning.plan import make_plan
from titanflow.runs.manifest import Manifest


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Plans stages that are small programs; ``planned.asked`` is what the flow asked of the planner."""

    def plan_of(**programs):
        plan = small_plan(tmp_path, **programs)

        def make_plan(*arguments):
            plan_of.asked = arguments
            return plan

        monkeypatch.setattr(module, "make_plan", make_plan)
        return plan.stages

    return plan_of


def newest_run():
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(limit=1, sort="EXPECTED_START_TIME_DESC")[0]


def artifacts(flow_run):
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id]))
    with get_client(sync_client=True) as client:
        return {artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=of_run)}


def test_a_run_s_stages_end_in_a_summary_and_what_the_ui_shows(api, planned, tmp_path):
    planned(pretrain=TRAINS, publish=PUBLISHES)
    summary = pretrain_sft("tiny", run="main")
    told = "published as /published: no gate was asked for (publish.gate)"
    assert summary == Summary(experiment="tiny", run="main", folder=tmp_path / "run", published="/published", told=told)
    flow_run = newest_run()
    assert flow_run.state.message == told
    assert flow_run.name == "tiny/main"
    assert flow_run.state.is_completed()
    shown = artifacts(flow_run)
    assert {"pretrain-progress", "pretrain-results", "pretrain-loss", "publish-results", "summary"} <= set(shown)
    assert shown["pretrain-progress"].data == 100.0
    assert shown["pretrain-loss"].data.startswith("data:image/svg+xml")
    assert "### pretrain: step 4, loss 4" in shown["summary"].data
    assert "its report: `report.html`" in shown["summary"].data


def test_stages_without_a_form_are_set_by_overrides_and_so_elsewhere(api, tmp_path, monkeypatch):
    asked = []

    def run_plan(plan, request, wait):
        asked.append((plan, request))
        return Summary(experiment="mine", run="main", folder=tmp_path)

    monkeypatch.setattr(module, "run_plan", run_plan)
    prefer = {"base": "sft", "config": "prefer.yaml", "data": "stdlib_pairs.yaml"}
    prefer["overrides"] = {"training": {"seq_len": 128, "mixed_precision_param": "float32"}}
    modules = {"prefer": prefer, "second": {"stage": "prefer", **prefer}}
    own = {"prefer.prefer.beta": 0.3, "prefer.training.steps": 7, "modules.second": None, "workspace": str(tmp_path)}
    # As a deployment's parameters come: all of it JSON.
    parameters = {
        "experiment": json.dumps({"exp_name": "mine", "extends": ["stdlib.yaml"], "modules": modules}),
        "sft": {"training": {"steps": 9}},
        "overrides": {**own, "evaluate.models": ["sft", "prefer"], "publish.model": "prefer"},
    }
    pretrain_sft(**parameters)
    ((plan, request),) = asked
    stages = {stage.stage: stage for stage in plan.stages}
    assert list(stages) == ["prepare", "pretrain", "sft", "prefer", "evaluate", "publish"]
    run = stages["prefer"].run
    assert (run.config["prefer"]["beta"], run.config["training"]["steps"]) == (0.3, 7)
    assert run.origins["prefer.beta"] == "flow parameter prefer.prefer.beta"
    assert stages["sft"].run.config["training"]["steps"] == 9
    again = make_plan(*request.elsewhere(plan, stages["prefer"]))
    assert [one.run.fingerprint for one in again.stages] == [one.run.fingerprint for one in plan.stages]
    pretrain_sft(**parameters | {"overrides": own | {"prefer.dpo_beta": 0.3}}, return_state=True)
    assert len(asked) == 1
    assert "`dpo_beta` is `prefer.prefer.beta` here" in newest_run().state.message


@pytest.mark.parametrize(
    ("overrides", "name"),
    [({}, "mine/main"), ({"exp_name": "ours"}, "ours/main exp_name=ours"), ({"typo": 1}, "mine/main typo=1")],
)
def test_a_flow_run_is_called_as_its_experiment(tmp_path, monkeypatch, overrides, name):
    tree = tmp_path / "experiments"
    tree.mkdir()
    (tree / "file.yaml").write_text("extends: [stdlib.yaml]\nexp_name: mine\n")
    parameters = {"experiment": "file", "configs": str(tmp_path), "overrides": overrides}
    monkeypatch.setattr(module, "flow_run", SimpleNamespace(parameters=parameters))
    assert module.flow_run_name() == name


def test_a_run_is_recorded_in_its_manifest_with_the_flow_run(api, planned, tmp_path):
    planned(pretrain=TRAINS)
    pretrain_sft("tiny")
    manifest = Manifest.open(tmp_path / "run")
    assert manifest.is_done("pretrain", "pretrain-1")
    assert manifest.stages["pretrain"].prefect_run == str(newest_run().id)
    assert (tmp_path / "run/plan.json").exists()


def test_a_run_leaves_its_report_also_where_a_stage_failed(api, planned, tmp_path):
    planned(pretrain=TRAINS, publish=FAILS)
    with pytest.raises(StageFailed):
        pretrain_sft("tiny")
    report = (tmp_path / "run/report.html").read_text()
    assert "publish failed" in report
    assert "loss is nan" in report


def test_a_report_that_fails_costs_no_run(api, planned, monkeypatch):
    def fails(folder):
        raise OSError("no space left on device")

    monkeypatch.setattr(run_plan, "write_report", fails)
    planned(publish=PUBLISHES)
    assert pretrain_sft("tiny").published == "/published"


def test_what_is_done_is_cached_in_prefect_s_eyes_too(api, planned, wait_for_states):
    (stage,) = planned(publish=PUBLISHES)
    pretrain_sft("tiny")
    stage.state, stage.reason, stage.command = "CACHED", "nothing changed", ["/must/not/run"]
    assert pretrain_sft("tiny").published == "/published"
    wait_for_states(newest_run(), {"push_to_hub": "Cached"})


def test_a_model_that_is_held_back_ends_the_run_completed_in_a_state_that_says_so(api, planned, wait_for_states):
    planned(publish=HOLDS_BACK)
    summary = pretrain_sft("tiny")
    assert (summary.published, summary.held_back) == ("", "no better than c0ffee")
    flow_run = newest_run()
    assert flow_run.state.is_completed()
    assert (flow_run.state.name, flow_run.state.message) == ("Held back", "no better than c0ffee")
    shown = artifacts(flow_run)
    assert "### publish: held back: no better than c0ffee" in shown["summary"].data
    assert "+0.01 against the last, 95 % sure of more than -0.02 (400 samples): not passed" in shown["summary"].data
    wait_for_states(flow_run, {"push_to_hub": "Held back"})


def test_a_failed_stage_fails_the_run_with_its_own_words(api, planned, wait_for_states):
    planned(pretrain=FAILS, publish=PUBLISHES)
    with pytest.raises(StageFailed, match="pretrain failed on rank 1: ValueError: loss is nan"):
        pretrain_sft("tiny")
    flow_run = newest_run()
    assert "ValueError: loss is nan" in flow_run.state.message
    wait_for_states(flow_run, {"pretrain": "Failed"})


def test_tasks_are_held_against_prepared_items_before_anything_is_trained(api, planned, monkeypatch, tmp_path):
    planned(prepare=PREPARES, pretrain=TRAINS)

    def check_tasks(stages, modules):
        assert (tmp_path / "run/prepare/result.json").exists()
        raise ConfigError("no item has 'messages'")

    monkeypatch.setattr(run_plan, "check_tasks", check_tasks)
    with pytest.raises(ConfigError, match="no item has 'messages'"):
        pretrain_sft("tiny")
    assert not (tmp_path / "run/pretrain").exists()


def test_a_stage_that_was_killed_goes_on_in_its_folder_in_a_second_attempt(api, planned, tmp_path, caplog):
    (stage,) = planned(pretrain=IS_KILLED_ONCE)
    pretrain_sft("tiny")
    assert newest_run().state.is_completed()
    assert not (tmp_path / "run/superseded").exists()
    assert Manifest.open(tmp_path / "run").is_done("pretrain", "pretrain-1")
    assert "pretrain was killed by SIGKILL; it resumes from step 3" in caplog.text
    assert "pretrain RESUME: from step 3 (attempt 2)" in caplog.text
    assert stage.state == "RUN"


def test_a_stage_that_fails_of_itself_has_one_attempt(api, planned, tmp_path):
    planned(pretrain=FAILS)
    with pytest.raises(StageFailed):
        pretrain_sft("tiny")
    assert (tmp_path / "run/pretrain/pretrain.log").read_text().count("$ ") == 1


def test_a_run_says_how_often_it_may_be_tried_and_which_process_it_is(api, planned):
    planned(publish=PUBLISHES)
    pretrain_sft("tiny")
    labels = newest_run().labels
    assert (labels["titanflow.work_group"], "titanflow.user_name" in labels) == ("speech", False)
    assert (labels[LOST_LABEL], labels[DELAY_LABEL]) == (1, 0)
    assert labelled_process_lives(labels[PROCESS_LABEL])


def test_a_push_without_a_token_is_refused_before_anything_is_trained(api, planned, tmp_path, monkeypatch):
    _, publish = planned(pretrain=TRAINS, publish=PUBLISHES)
    publish.run.config = {"target": "hub", "repo_id": "a/b"}
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(HubError, match="set HF_TOKEN"):
        pretrain_sft("tiny")
    assert not (tmp_path / "run").exists()


def test_knobs_and_overrides_reach_the_planner_as_dotted_keys(api, planned):
    planned()
    pretrain_sft(
        "tiny",
        configs="conf",
        run="a",
        pretrain_steps=7,
        sft_learning_rate=1e-5,
        nproc_per_node=2,
        sft={"training": {"seq_len": 64}},
        evaluate={"num_fewshot": 1},
        overrides={"evaluate.limit": 3, "pretrain.training.steps": 7},
    )
    assert planned.asked == (
        "tiny",
        "conf",
        "a",
        {
            "pretrain.training.steps": 7,
            "sft.optimizer.lr": 1e-5,
            "launcher.nproc_per_node": 2,
            "sft.training.seq_len": 64,
            "evaluate.num_fewshot": 1,
            "evaluate.limit": 3,
        },
    )
    assert newest_run().name == "tiny/a pretrain.steps=7 sft.lr=1e-05 launcher.nproc_per_node=2 and 3 more"


def test_bad_input_fails_the_run_before_anything_is_written(api, monkeypatch, tmp_path):
    def refuse(*arguments):
        raise ConfigError("unknown key: did you mean `local_batch_size`?")

    monkeypatch.setattr(module, "make_plan", refuse)
    with pytest.raises(ConfigError, match="local_batch_size"):
        pretrain_sft("tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_does_not_wait_is_refused_before_it_is_planned(api, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "make_plan", lambda *arguments: pytest.fail("it is planned"))
    monkeypatch.setattr(module, "run_folder", lambda *arguments: tmp_path)
    with held(tmp_path), pytest.raises(StageFailed, match=f"{tmp_path} is in use by process"):
        pretrain_sft("tiny", wait=False)


BAD = [
    {"pretrain_steps": 0},
    {"sft_steps": "many"},
    {"experiment": ""},
    {"sft": {"training": {"steps": 0}}},
    {"pretrain": {"training": {"stepz": 1}}},
    {"publish": {"target": "everywhere"}},
]


@pytest.mark.parametrize("bad", BAD)
def test_a_parameter_of_the_wrong_kind_is_refused(api, bad):
    with pytest.raises(ParameterTypeError, match=next(iter(bad))):
        pretrain_sft(**bad)


def test_the_form_explains_every_parameter():
    properties = pretrain_sft.parameters.properties
    assert all(field.get("description") for field in properties.values())
    assert properties["experiment"]["default"] == "stdlib"


def test_the_short_parameters_have_the_bounds_of_the_keys_that_they_set():
    properties = pretrain_sft.parameters.properties
    for name, key in KNOBS.items() - {("on_stale", "on_stale")}:
        stage, _, rest = key.replace("launcher.", "sft.launcher.").partition(".")
        section, _, field = rest.partition(".")
        schema = stage_schema(stage)["properties"][section]["properties"][field]
        short = properties[name]
        assert {word: short[word] for word in ("type", *BOUNDS) if word in short} == {
            word: schema[word] for word in ("type", *BOUNDS) if word in schema
        }, name
    assert pretrain_sft.parameters.required == []


def test_a_mistake_is_shown_as_its_lines(api, monkeypatch, caplog):
    mistake = ConfigError(
        [Problem("found 3", "a", "my.yaml:3", "a name"), Problem("found 4", "b", "my.yaml:4", hint="try 5")]
    )

    def refuse(*arguments):
        raise mistake

    monkeypatch.setattr(module, "make_plan", refuse)
    with get_client(sync_client=True) as client:
        state = pretrain_sft("tiny", return_state=True)
        assert client.read_flow_run(state.state_details.flow_run_id).state.message == str(mistake)
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == ["2 problems:\nmy.yaml:3: a: found 3\n    expected: a name\nmy.yaml:4: b: found 4\n    try 5"]
    assert "Traceback" not in caplog.text


def test_a_full_disk_is_a_sentence(api, monkeypatch, caplog):
    def fills(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "make_plan", fills)
    state = pretrain_sft("tiny", return_state=True)
    assert (state.name, state.message.partition(":")[0]) == (
        "Failed",
        "the disk is full ([Errno 28] No space left on device)",
    )
    assert "Traceback" not in caplog.text


def test_a_date_in_the_run_s_name_is_the_scheduled_day(monkeypatch):
    late_in_new_york = datetime.fromisoformat("2026-11-20T23:59:59-05:00")
    monkeypatch.setitem(FIELDS, "scheduled_start_time", lambda: late_in_new_york)
    assert dated("nightly-{date}", scheduled_day) == "nightly-2026-11-21"
    assert dated("main", scheduled_day) == "main"
    assert dated(None, scheduled_day) is None


def test_a_date_without_a_schedule_is_today():
    assert dated("{date}", scheduled_day) == f"{datetime.now(UTC):%Y-%m-%d}"


@pytest.mark.parametrize("name", ["flows.pretrain_sft", "flows.local_run"])
def test_importing_the_flow_imports_neither_torch_nor_what_runs_under_it(name):
    program = f"import sys, {name}; print([m for m in ('torch', 'titan', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
