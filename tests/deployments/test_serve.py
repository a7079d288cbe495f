import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelling
from watching import PATIENCE, alive, lines, wait_for

from deployments.deployed import IN_FOLDER
from deployments.nightly import Nights, check_nights
from deployments.serve import deploy
from deployments.server import server_or_running_one
from titanflow.common.errors import ConfigError

FOREVER = 1_000_000


@pytest.fixture
def client(served):
    with get_client(sync_client=True) as client:
        yield client


def submit(client, configs, **parameters):
    deployment = client.read_deployment_by_name("pretrain-sft/on-demand")
    chosen = {"experiment": "tiny", "configs": str(configs), **parameters}
    return client.create_flow_run_from_deployment(deployment.id, parameters=chosen)


def wait_until_training(client, flow_run, configs):
    metrics = configs.parent / f"runs/tiny/{flow_run.parameters['run']}/pretrain/metrics.jsonl"
    before = newest_step(metrics)

    def trains():
        state = client.read_flow_run(flow_run.id).state
        assert not state.is_final(), state.message
        return newest_step(metrics) > before + 2

    wait_for(trains, "the training's first steps", patience=2 * PATIENCE)


def newest_step(metrics):
    return max((json.loads(line)["step"] for line in lines(metrics)), default=0)


def wait_until(client, flow_run, state):
    name = flow_run.name
    wait_for(lambda: client.read_flow_run(flow_run.id).state_name == state, f"{name} {state}", patience=2 * PATIENCE)


def processes_of(configs, run):
    """The processes that work on a run: those with its folder in their command line."""
    folder = str(configs.parent / f"runs/tiny/{run}")
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if any(folder in part for part in process.info["cmdline"] or [])]


def checkpoints(configs, run):
    return list((configs.parent / f"runs/tiny/{run}/pretrain/checkpoint").glob("step-*/.metadata"))


def newest(checkpoints):
    return max(int(path.parent.name.removeprefix("step-")) for path in checkpoints)


def test_both_deployments_are_there(client):
    on_demand = client.read_deployment_by_name("pretrain-sft/on-demand")
    nightly = client.read_deployment_by_name("pretrain-sft/nightly-stdlib_nightly")
    assert {on_demand.work_pool_name, nightly.work_pool_name} == {"titanflow"}
    assert nightly.parameters == {"run": "{date}", "night": True, "experiment": "stdlib_nightly"}
    assert on_demand.global_concurrency_limit is None
    assert nightly.concurrency_options.collision_strategy == "ENQUEUE"


def test_nightly_has_scheduled_runs_at_two_in_the_morning(client):
    def scheduled():
        return client.read_flow_runs(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=["nightly-stdlib_nightly"])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
            ),
        )

    runs = wait_for(scheduled, "the nightly runs")
    assert {(run.expected_start_time.hour, run.expected_start_time.minute) for run in runs} == {(2, 0)}


def test_a_run_from_the_command_line_completes(served, tiny_configs):
    chosen = ("experiment=tiny", f"configs={tiny_configs}", "run=watched", "pretrain_steps=3")
    parameters = [part for parameter in chosen for part in ("--param", parameter)]
    done = served.prefect("deployment", "run", "pretrain-sft/on-demand", *parameters, "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tiny_configs.parent / "runs/tiny/watched"
    assert json.loads((folder / "pretrain/result.json").read_text())["step"] == 3
    published = json.loads((folder / "publish/result.json").read_text())
    assert "model.safetensors" in published["files"]


def test_a_run_by_hand_uses_the_served_server_whatever_stands_in_the_way(served, client, tiny_configs):
    """The command in the same environment; of the run above, publishing is to be done again."""
    shutil.rmtree(tiny_configs.parent / "runs/tiny/watched/publish")
    chosen = ("--configs", str(tiny_configs), "--run", "watched", "--set", "pretrain.training.steps=3")
    command = [sys.executable, "-m", "titanflow.cli.main", "run", "tiny", *chosen]
    done = subprocess.run(command, env=served.env, cwd=served.home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    by_hand = next(run for run in client.read_flow_runs() if run.deployment_id is None)
    assert (by_hand.name.split()[0], by_hand.state_name) == ("tiny/watched", "Completed")


def test_runs_start_where_serve_was_started(served, client):
    steps = client.read_deployment_by_name("pretrain-sft/on-demand").pull_steps
    assert steps == [{IN_FOLDER: {"directory": str(served.workspace)}}]


def test_a_misspelled_parameter_is_refused(served):
    done = served.prefect("deployment", "run", "pretrain-sft/on-demand", "--param", "pretrain_stesp=3")
    assert done.returncode != 0
    assert "pretrain_stesp" in done.stdout + done.stderr


def test_a_cancelled_run_saves_and_leaves_no_process(client, tiny_configs):
    flow_run = submit(client, tiny_configs, run="cancelled", pretrain_steps=FOREVER)
    wait_until_training(client, flow_run, tiny_configs)
    assert processes_of(tiny_configs, "cancelled")
    client.set_flow_run_state(flow_run.id, Cancelling())
    wait_until(client, flow_run, "Cancelled")
    wait_for(lambda: not processes_of(tiny_configs, "cancelled"), "the processes' end")
    assert checkpoints(tiny_configs, "cancelled")


def test_a_named_experiment_has_its_night_and_one_that_is_named_no_more_loses_its_schedule(
    served, client, tmp_path, capsys
):
    on_demand = client.read_deployment_by_name("pretrain-sft/on-demand")
    template = {"sft.chat.template": "{% for m in messages %}{{ m.content }}{% endfor %} {{ $HOME }}"}
    client.update_deployment(on_demand.id, DeploymentUpdate(parameters={"run": "mine", "overrides": template}))
    asked = Nights(("stdlib",), "0 4 * * *")
    env = {"PREFECT_API_URL": served.url, "TITANFLOW_HOME": str(served.workspace)}
    assert deploy(served.url, env, tmp_path, check_nights(asked), asked) == [
        "nightly-stdlib runs stdlib at 0 4 * * * (UTC)."
    ]
    assert "nightly-stdlib_nightly: the schedule 0 2 * * * (UTC) → none, as this was started" in capsys.readouterr().out
    assert client.read_deployment_by_name("pretrain-sft/nightly-stdlib_nightly").schedules == []
    # Prefect fills in what has braces in the file that it deploys: braces are a chat template's.
    edited = client.read_deployment_by_name("pretrain-sft/on-demand").parameters
    assert edited == {"run": "mine", "overrides": template}
    client.update_deployment(on_demand.id, DeploymentUpdate(parameters=on_demand.parameters))


def test_a_server_that_runs_is_used(served, tmp_path):
    with server_or_running_one(1, tmp_path) as (url, process):
        assert (url, process) == (served.url, None)


@pytest.fixture(scope="module")
def started_again(served, tiny_configs):
    """A run that saw its worker killed, and trains again."""
    with get_client(sync_client=True) as client:
        overrides = {"retries.delay": 0}
        flow_run = submit(client, tiny_configs, run="cancelled", pretrain_steps=FOREVER, overrides=overrides)
        wait_until_training(client, flow_run, tiny_configs)
        processes = processes_of(tiny_configs, "cancelled")
        children = psutil.Process(served.process.pid).children()
        next(child for child in children if "worker" in child.cmdline()).kill()

        def runs_again():
            return client.read_flow_run(flow_run.id).run_count == 2

        wait_for(runs_again, "its second attempt", patience=2 * PATIENCE)
        assert not any(alive(process.pid) for process in processes)
        wait_until_training(client, flow_run, tiny_configs)
        return flow_run


def test_a_run_whose_worker_was_killed_is_started_again(client, started_again):
    states = sorted(client.read_flow_run_states(started_again.id), key=lambda state: state.timestamp)
    crashed = next(index for index, state in enumerate(states) if state.is_crashed())
    again = states[crashed + 1]
    assert again.name == "AwaitingRetry"
    assert re.match(r"Attempt 2 of 3, after: the worker .* ended, and its runs with it", again.message)


def test_stopping_puts_the_run_in_hand_off_and_leaves_no_process(served, started_again, tiny_configs):
    flow_run = started_again
    saved = checkpoints(tiny_configs, "cancelled")
    assert served.stop() == []
    assert served.process.returncode == 0
    assert served.output.read_text("latin-1").endswith("stopped\n")
    assert processes_of(tiny_configs, "cancelled") == []
    assert newest(checkpoints(tiny_configs, "cancelled")) > newest(saved)
    with sqlite3.connect(served.home / "titanflow" / "prefect.db") as database:
        query = "select state_name, state_type from flow_run where id = ?"
        assert database.execute(query, [str(flow_run.id)]).fetchone() == ("Put off", "SCHEDULED")


def test_an_address_where_nothing_answers_is_named(tmp_path):
    env = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/else/api", "PREFECT_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "titanflow.cli.main", "serve"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    assert done.returncode == ConfigError.exit_code
    assert "PREFECT_API_URL: nothing answers at http://127.0.0.1:9/else/api" in done.stderr


def test_a_taken_port_is_named(tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "titanflow.cli.main", "serve", "--port", port]
        env["PREFECT_HOME"] = str(tmp_path)
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    assert done.returncode == ConfigError.exit_code
    assert f"port {port} is taken" in done.stderr
