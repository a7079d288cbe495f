import json
import subprocess
import sys
import threading

import pytest
from watching import STAYS

from flows import run_lock as module
from flows.run_lock import check_free, run_lock
from flows.sign_of_life import HOLDER_FILE, JOB_IDS
from titanflow.common.errors import StageFailed
from titanflow.planning.launch import STAGE_FOLDER

HOLDS = f"""
import sys, time
from pathlib import Path
from flows.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep({STAYS})
"""
WRITES = f"import time; print('writes', flush=True); time.sleep({STAYS})"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)


@pytest.fixture
def start():
    """Starts a program that prints a word and stays."""
    started = []

    def begin(program, *arguments, env=None):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=env
        )
        started.append(process)
        process.stdout.readline()
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_a_folder_in_use_is_refused_and_free_again_when_its_holder_is_killed(tmp_path, start):
    check_free(tmp_path / "not there")
    holder = start(HOLDS, str(tmp_path))
    refusal = f"in use by process {holder.pid} on .*--wait.*--run"
    with pytest.raises(StageFailed, match=refusal), run_lock(tmp_path):
        pass
    with pytest.raises(StageFailed, match=refusal):
        check_free(tmp_path)
    holder.kill()
    holder.wait()
    check_free(tmp_path)
    with run_lock(tmp_path) as waited:
        assert not waited


@pytest.mark.parametrize("name", JOB_IDS)
def test_a_job_of_a_cluster_on_this_machine_is_followed_not_waited_for(tmp_path, start, monkeypatch, name):
    monkeypatch.setattr(module, "LEFT_SECONDS", 0.0)
    env = {STAGE_FOLDER: str(tmp_path / "pretrain")}
    start(WRITES, env={**env, name: "7"})
    with run_lock(tmp_path) as waited:
        assert not waited
    left = start(WRITES, env=env)
    with pytest.raises(StageFailed, match=f"process {left.pid}, left by a run that was killed"), run_lock(tmp_path):
        pass


def test_who_waits_says_for_whom_and_goes_on_when_the_other_ends(tmp_path, start, monkeypatch):
    monkeypatch.setattr(module, "SAY_SECONDS", 0.0)
    holder, said, second = start(HOLDS, str(tmp_path)), [], threading.Event()

    def say(line):
        said.append(line)
        if len(said) == 2:
            second.set()
            holder.kill()

    with run_lock(tmp_path, wait=True, say=say) as waited:
        assert waited
        assert second.is_set()
    assert f"in use by process {holder.pid} on " in said[0]


@pytest.mark.parametrize("known_by", ["its run.yaml", "the environment"])
def test_a_stage_that_a_killed_run_left_is_waited_for(tmp_path, start, known_by, monkeypatch):
    stage = tmp_path / "pretrain"
    if known_by == "its run.yaml":
        writer = start(WRITES, str(stage / "run.yaml"))
    else:
        writer = start(WRITES, env={STAGE_FOLDER: str(stage)})
    said = []

    def say(line):
        said.append(line)
        writer.kill()
        writer.wait()

    # A run that is refused beside another waits for these all the same: they are only saving.
    with run_lock(tmp_path, wait=False, say=say) as waited:
        assert waited
    assert f"process {writer.pid}, left by a run that was killed" in said[0]
    start(WRITES, str(stage / "run.yaml"))
    monkeypatch.setattr(module, "LEFT_SECONDS", 0.0)
    with pytest.raises(StageFailed, match="left by a run that was killed"), run_lock(tmp_path):
        pass


def test_what_works_in_another_folder_is_none_of_its_business(tmp_path, start):
    start(WRITES, str(tmp_path / "b" / "pretrain" / "run.yaml"))
    with run_lock(tmp_path / "a") as waited:
        assert not waited


def test_it_can_be_taken_again_and_other_folders_are_free(tmp_path):
    for _ in range(2):
        with run_lock(tmp_path / "a"), run_lock(tmp_path / "b"):
            pass
    assert (tmp_path / "b/.lock").exists()


def test_a_run_on_another_machine_is_waited_for_where_locks_do_not_reach(tmp_path, monkeypatch):
    holder = {"machine": "another", "host": "login2", "pid": 12, "job": None, "beat": 0}
    (tmp_path / HOLDER_FILE).write_text(json.dumps(holder))
    said = []

    def say(line):
        said.append(line)
        (tmp_path / HOLDER_FILE).unlink()

    with run_lock(tmp_path, wait=True, say=say) as waited:
        assert waited
    assert "in use by process 12 on login2" in said[0]


def test_a_run_on_another_machine_that_is_seen_to_live_is_refused_at_once(tmp_path, monkeypatch):
    """Only one whose sign stands still may be dead, and is watched for minutes."""
    beats = iter(range(100))

    def beat():
        holder = {"machine": "another", "host": "login2", "pid": 12, "job": None, "beat": next(beats)}
        (tmp_path / HOLDER_FILE).write_text(json.dumps(holder))

    beat()
    monkeypatch.setattr(module.time, "sleep", lambda seconds: beat())
    with pytest.raises(StageFailed, match="in use by process 12 on login2"), run_lock(tmp_path):
        pass
    assert next(beats) == 2
