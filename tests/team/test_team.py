"""Runs of a team: a server on PostgreSQL, three machines; a machine is namespaces, all share the file system."""

import json
import re

import pytest
from hosts import HANG
from prefect.states import Cancelling
from team import ALONE, NAMES, losses
from watching import alive, wait_for

pytestmark = pytest.mark.team
FOREVER = 1_000_000
STAGES = ("prepare", "pretrain", "publish")
FAULTS = re.compile(r"database is locked|deadlock|QueuePool|can't be (made|written)", re.IGNORECASE)


def test_ten_runs_at_once_from_three_workers(team):
    names = [f"run{number}" for number in range(10)]
    runs = {name: team.submit(name, steps=3) for name in names}
    for run in runs.values():
        wait_for(lambda run=run: team.flow_run(run).state.is_final(), "a run's end", 10 * HANG)
    assert {name: team.flow_run(run).state.name for name, run in runs.items()} == dict.fromkeys(names, "Completed")
    for name, run in runs.items():
        folder = team.runs / name
        manifest = json.loads((folder / "manifest.json").read_text())["stages"]
        assert {stage: manifest[stage]["prefect_run"] for stage in manifest} == dict.fromkeys(STAGES, str(run))
        assert json.loads((folder / "pretrain" / "result.json").read_text())["step"] == 3
        published = json.loads((folder / "publish" / "result.json").read_text())
        assert (published["status"], published["location"]) == ("published", str(folder / "publish" / "model"))
        # Each stage was started once, each step done once, and no state of the run is missing or doubled.
        assert [(folder / stage / f"{stage}.log").read_text().count("$ cd ") for stage in STAGES] == [1, 1, 1]
        assert losses(folder) == {1: 1, 2: 1, 3: 1}
        states = [state.type.value for state in team.states(run)]
        assert (states[0], states[-1]) == ("SCHEDULED", "COMPLETED")
        assert (states.count("RUNNING"), states.count("COMPLETED")) == (1, 1)
        tasks = team.tasks(run)
        assert sorted((task.name.split()[0], task.state_name) for task in tasks) == [
            ("prepare", "Completed"),
            ("pretrain", "Completed"),
            ("push_to_hub", "Completed"),
        ]
    assert {team.host_of(run).name for run in runs.values()} == set(NAMES)
    assert [found[0] for found in FAULTS.finditer(team.logs())] == []


def test_of_two_runs_of_one_folder_the_second_waits_and_goes_on(team):
    """The folder's lock counts for each machine alone: the second knows the first by its sign of life."""
    first = team.submit(ALONE, FOREVER)
    team.trains(first)
    refused = team.submit(ALONE, FOREVER, wait=False)
    second = team.submit(ALONE, FOREVER)
    holder = rf"{team.runs / ALONE} is in use by process \d+ on {team.host_of(first).name}"
    wait_for(lambda: re.search(holder, team.log(second)), "the second to wait", HANG)
    team.ends(refused, "Failed")
    assert re.search(holder, team.flow_run(refused).state.message)
    team.set_state(first, Cancelling())
    team.ends(first, "Cancelled")
    saved = team.saved(ALONE)
    assert saved
    team.trains(second)
    assert team.host_of(second) is not team.host_of(first)
    assert f"pretrain RESUME: from step {saved}" in team.log(second)
    team.set_state(second, Cancelling())
    team.ends(second, "Cancelled")
    assert set(losses(team.runs / ALONE).values()) == {1}
    wait_for(lambda: not team.processes(ALONE), "the processes' end")


def test_a_cancel_ends_one_run_and_a_killed_worker_s_run_goes_on_elsewhere(team):
    names = ["cancelled1", "cancelled2", "killed"]
    runs = {name: team.submit(name, FOREVER, overrides={"retries.delay": 0}) for name in names}
    for run in runs.values():
        team.trains(run)
    assert {team.host_of(run).name for run in runs.values()} == set(NAMES)
    for name in names[:2]:
        mine = team.processes(name)
        others = [process for other in names if other != name for process in team.processes(other)]
        team.set_state(runs[name], Cancelling())
        team.ends(runs[name], "Cancelled")
        wait_for(lambda mine=mine: not any(alive(process.pid) for process in mine), "the processes' end")
        assert all(alive(process.pid) for process in others)
        assert team.saved(name)
    killed = runs["killed"]
    assert not team.flow_run(killed).state.is_final()
    processes = team.processes("killed")
    team.host_of(killed).find("worker start").kill()
    wait_for(lambda: team.flow_run(killed).run_count == 2, "its second attempt", HANG)
    assert not any(alive(process.pid) for process in processes)
    saved = team.saved("killed")
    team.trains(killed)
    assert f"from step {saved}" in team.log(killed)
    names_of_states = [state.name for state in team.states(killed)]
    crashed = names_of_states.index("Crashed")
    assert names_of_states[crashed + 1] == "AwaitingRetry"
    team.set_state(killed, Cancelling())
    team.ends(killed, "Cancelled")
    assert set(losses(team.runs / "killed").values()) == {1}
    wait_for(lambda: not any(team.processes(name) for name in names), "the processes' end")


def test_a_run_whose_machine_lost_its_power_goes_on_on_another(team):
    """After three minutes: the worker's missed heartbeats, and a sign of life that stands still."""
    run = team.submit("powerless", FOREVER, overrides={"retries.delay": 0})
    team.trains(run)
    host = team.host_of(run)
    wait_for(lambda: team.saved("powerless"), "a checkpoint", HANG)
    host.lose_power()
    wait_for(lambda: team.flow_run(run).run_count == 2, "its second attempt", HANG)
    saved = team.saved("powerless")
    team.trains(run)
    assert team.host_of(run) is not host
    assert f"from step {saved}" in team.log(run)
    (cause,) = [state.message for state in team.states(run) if state.name == "Crashed"]
    assert cause.startswith("the run's machine is gone: its worker doesn't answer, and the run shows no sign of life")
    team.set_state(run, Cancelling())
    team.ends(run, "Cancelled")
    assert set(losses(team.runs / "powerless").values()) == {1}
    wait_for(lambda: not team.processes("powerless"), "the processes' end")
