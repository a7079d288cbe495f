"""Against a client that answers as a server does; tests/survival has real ones."""

import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psutil
import pytest
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Pending, Running, Scheduled
from stand_in_server import HERE, StandInServer
from watching import PATIENCE, alive, wait_for

from deployments.flow_runs import lost_runs
from deployments.flow_runs.lost_runs import FLOW_RUN_ID, LOOKS, LOOKS_PENDING, LostRuns, automatic_attempt, living_runs
from deployments.work_pool import host_of
from flows import sign_of_life as module_of_signs
from flows.sign_of_life import sign_of_life
from tasks.process.process import MARK
from tasks.ui.labels import DELAY_LABEL, LOST_LABEL, PROCESS_LABEL, SIGN_LABEL

pytestmark = pytest.mark.slow

KILLED = "Process exited with status code: -9. Process exited due to a SIGKILL signal."
AGAIN = Scheduled(name="AwaitingRetry", message=f"Attempt 2 of 3, after: {KILLED}")
RETRY = Scheduled(name="AwaitingRetry", message="Retry from the UI")


@pytest.fixture
def server(monkeypatch):
    server = StandInServer()
    monkeypatch.setattr(lost_runs, "get_client", lambda sync_client: nullcontext(server))
    monkeypatch.setattr(lost_runs, "SETTLED", timedelta.min)
    return server


@pytest.fixture
def look(server):
    told = []
    lost = LostRuns("http://127.0.0.1:9/api", tell=told.append)

    def look(times=LOOKS):
        for _ in range(times):
            lost.look()

    look.lost, look.told = lost, told
    return look


def process(run: UUID, marks=""):
    """A process of a run, which waits."""
    env = {**os.environ, FLOW_RUN_ID: str(run), MARK: marks}
    started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=env)
    wait_for(lambda: psutil.Process(started.pid).environ().get(FLOW_RUN_ID), "the process")
    return started


def test_a_run_without_a_process_crashes_and_is_started_again(server, look):
    run = server.add(Running())
    look(LOOKS - 1)
    assert server.history[run] == []
    look(1)
    (crashed, cause), (scheduled, why) = server.history[run]
    assert (crashed, scheduled) == ("Crashed", "AwaitingRetry")
    assert cause.startswith("the run's process is gone without an error")
    assert (
        why == "Attempt 2 of 3, after: the run's process is gone without an error: its worker or its machine went down"
    )


def test_a_healthy_run_is_left_alone(server, look):
    run = server.add(Running())
    healthy = process(run, marks="worker")
    try:
        look(2 * LOOKS)
        assert server.history[run] == []
    finally:
        healthy.communicate()
    look()
    assert server.history[run][0][0] == "Crashed"


def test_a_stage_without_its_flow_is_no_run_and_is_killed_when_its_time_is_up(server, look):
    run = server.add(Running())
    orphan = process(run, marks="worker/stage")
    try:
        look(LOOKS - 1)
        assert run not in living_runs()
        assert alive(orphan.pid)
        look(1)
        assert orphan.wait(PATIENCE) == -9
        assert server.history[run][0][0] == "Crashed"
    finally:
        orphan.kill()
        orphan.communicate()


def test_a_pending_run_s_process_has_longer_to_start(server, look):
    run = server.add(Pending())
    look(LOOKS_PENDING - 1)
    assert server.history[run] == []
    look(1)
    assert server.history[run][0][0] == "Crashed"


def test_a_run_that_was_being_cancelled_is_cancelled_and_stays_so(server, look):
    run = server.add(Cancelling())
    look(2 * LOOKS)
    assert [name for name, _ in server.history[run]] == ["Cancelled"]


def test_a_killed_flow_is_started_again_as_often_as_its_config_says(server, look):
    soon = datetime.now(UTC) + timedelta(seconds=1)
    first, last = (
        server.add(Crashed(message=KILLED, timestamp=soon), {**HERE, LOST_LABEL: 1}, past=past)
        for past in ([], [AGAIN])
    )
    look(2)
    assert server.history[first] == [("AwaitingRetry", f"Attempt 2 of 2, after: {KILLED}")]
    assert server.history[last] == []
    assert look.told.count("tiny crashed in attempt 2 of 2 and isn't started again") == 1


@pytest.mark.parametrize(
    ("past", "attempt"),
    [
        ([], 1),
        ([AGAIN, AGAIN], 3),
        ([AGAIN, AGAIN, RETRY], 1),
        ([AGAIN, RETRY, AGAIN], 2),
        ([AGAIN, Scheduled(name="Put off"), Scheduled(name="Resuming"), Scheduled(name="Queued")], 2),
    ],
)
def test_what_a_person_starts_again_uses_up_no_automatic_attempt(past, attempt):
    began = datetime.now(UTC)
    states = [state.model_copy(update={"timestamp": began + timedelta(number)}) for number, state in enumerate(past)]
    assert automatic_attempt(reversed(states)) == attempt


def test_a_crash_that_the_worker_may_tell_again_is_waited_out(server, look, monkeypatch):
    monkeypatch.setattr(lost_runs, "SETTLED", timedelta(minutes=1))
    run = server.add(Crashed(message=KILLED))
    look()
    assert server.history[run] == []


def test_what_crashed_otherwise_or_long_ago_or_was_cancelled_is_left_alone(server, look):
    old = datetime.now(UTC) - timedelta(hours=1)
    runs = [
        server.add(Crashed(message="Execution was aborted by a termination signal.")),
        server.add(Crashed(message=KILLED, timestamp=old)),
        server.add(Cancelled()),
    ]
    look()
    assert [server.history[run] for run in runs] == [[], [], []]


def test_runs_that_crash_with_their_worker_are_started_again(server, look):
    mine, other = server.add(Running()), server.add(Running(), {**HERE, "prefect.worker.name": "elsewhere-5"})
    look.lost.worker_ended(HERE["prefect.worker.name"])
    for run in (mine, other):
        server.runs[run].state = Crashed(message="Execution was aborted by a termination signal.")
    look(1)
    assert server.history[mine] == [
        (
            "AwaitingRetry",
            f"Attempt 2 of 3, after: the worker {HERE['prefect.worker.name']} ended, and its runs with it",
        )
    ]
    assert server.history[other] == []


def test_a_deleted_run_is_told_of_by_the_machine_that_had_it(server, look):
    server.workers["elsewhere-5"] = "ONLINE"
    elsewhere = {**HERE, "prefect.worker.name": "elsewhere-5"}
    deleted, ended, other = server.add(Running()), server.add(Running()), server.add(Running(), elsewhere)
    look(1)
    del server.runs[deleted], server.runs[other]
    server.runs[ended].state = Completed()
    look(2)
    assert look.told == ["tiny was deleted on the server: it saves and ends"]


def test_another_machine_s_runs_are_its_own(server, look):
    server.workers["elsewhere-5"] = "ONLINE"
    runs = [
        server.add(Running(), {**HERE, "prefect.worker.name": "elsewhere-5"}),
        server.add(Running(), {**HERE, "prefect.worker.type": "kubernetes"}),
        server.add(Running(), {PROCESS_LABEL: "elsewhere 1 2.00"}, deployment=False, pool=None),
    ]
    look(LOOKS_PENDING)
    assert [server.history[run] for run in runs] == [[], [], []]


GONE = {**HERE, "prefect.worker.name": "before-the-container-s-restart-5"}


def test_a_run_whose_machine_is_gone_is_started_again_by_another(server, look):
    server.workers["before-the-container-s-restart-5"] = "OFFLINE"
    run, never_begun = server.add(Running(), GONE), server.add(Pending(), {})
    look()
    assert [name for name, _ in server.history[run]] == ["Crashed", "AwaitingRetry"]
    assert server.history[run][0][1].startswith("the run's machine is gone")
    assert server.history[never_begun] == []
    look(LOOKS_PENDING)
    assert server.history[never_begun][0][0] == "Crashed"


def test_only_the_first_of_a_pool_s_machines_does_that(server, look):
    server.workers |= {"!first-1-gpu0": "ONLINE", "ProcessWorker 7": "ONLINE"}
    run = server.add(Running(), GONE)
    look(2 * LOOKS)
    assert server.history[run] == []
    server.workers["!first-1-gpu0"] = "OFFLINE"
    look()
    assert server.history[run][0][0] == "Crashed"


def test_a_run_that_shows_a_sign_of_life_goes_on_without_its_worker(server, look, tmp_path, monkeypatch):
    sign = tmp_path / "sign"
    run = server.add(Running(), {**GONE, SIGN_LABEL: str(sign)})
    with sign_of_life(sign):
        monkeypatch.setattr(module_of_signs, "machine", lambda: "another")
        look(2 * LOOKS)
        assert server.history[run] == []
    look()
    assert server.history[run][0][0] == "Crashed"


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_server_s_clock_is_its_own(server, look, hours):
    server.ahead = timedelta(hours=hours)
    then = datetime.now(UTC) + server.ahead + timedelta(seconds=1)
    run = server.add(Crashed(message=KILLED, timestamp=then), {**HERE, DELAY_LABEL: 60})
    look(1)
    (scheduled,) = server.history[run]
    assert scheduled[0] == "AwaitingRetry"
    assert abs(server.runs[run].state.state_details.scheduled_time - then) < timedelta(minutes=2)


@pytest.mark.parametrize("name", ["node-12-345", "node-12-345-gpu0", "node-12-345-gpuGPU-5-6"])
def test_a_worker_s_machine_is_in_its_name(name):
    assert host_of(name) == "node-12"
    assert host_of("ProcessWorker 881d92a0-b316-4344-b95f-123456789012") == ""


def test_a_run_that_was_started_by_hand_is_found_by_its_label_and_not_started_again(server, look):
    created = psutil.Process().create_time()
    label = f"{socket.gethostname()} {os.getpid()} {{:.2f}}"
    lives = server.add(Running(), {PROCESS_LABEL: label.format(created)}, deployment=False, pool=None)
    gone = server.add(Running(), {PROCESS_LABEL: label.format(created - 5)}, deployment=False, pool=None)
    look(2 * LOOKS)
    assert server.history[lives] == []
    assert [name for name, _ in server.history[gone]] == ["Crashed"]


def test_a_server_that_is_away_is_told_once_and_asked_again(server, monkeypatch):
    def away(sync_client):
        raise ConnectionError("refused")

    told = []
    lost = LostRuns("http://127.0.0.1:9/api", tell=told.append)
    with monkeypatch.context() as patched:
        patched.setattr(lost_runs, "get_client", away)
        for _ in range(3):
            lost.look()
    assert told == ["lost runs can't be looked for (ConnectionError: refused); trying again"]
    run = server.add(Running())
    for _ in range(LOOKS):
        lost.look()
    assert server.history[run][0][0] == "Crashed"


def test_a_run_of_another_pool_is_for_that_pool_s_machine(server, look):
    elsewhere = {**HERE, "prefect.worker.name": "other-77"}
    run, of_small = server.add(Running()), server.add(Running(), labels=elsewhere, pool="small")
    look()
    assert server.runs[of_small].state.is_running()
    assert not server.runs[run].state.is_running()
    LostRuns("http://127.0.0.1:9/api", tell=print, pool="small").look()
    assert server.runs[of_small].state.is_running()
    server.runs[of_small].labels.update(HERE)
    small = LostRuns("http://127.0.0.1:9/api", tell=print, pool="small")
    for _ in range(LOOKS):
        small.look()
    assert server.history[of_small][0][0] == "Crashed"


def test_a_look_tells_waiting_runs_of_those_at_work(server, look, monkeypatch):
    told = []
    monkeypatch.setattr(lost_runs, "tell_queued", lambda client, pool, in_hand, now: told.append((pool, in_hand)))
    run = server.add(Running())
    look(1)
    assert told == [("titanflow", [server.runs[run]])]
