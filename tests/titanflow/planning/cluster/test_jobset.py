"""What a pod of a stage's job does, run by a real shell; and where the pods of several nodes meet."""

import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from watching import lines, wait_for

from titanflow.config.keys.launcher import Launcher
from titanflow.planning.cluster.jobset import identity, manifest, script
from titanflow.planning.cluster.resources import Resources, job_name, resources
from titanflow.runs.contract import StageRun
from titanflow.runs.torchrun import MEETING_ID, MEETING_POINT


def asked(folder: Path, nodes: int = 1, attempt: int = 1, **settings: Any) -> Resources:
    launcher = asdict(Launcher()) | {"kind": "kubernetes", "nnodes": nodes, "nproc_per_node": 4}
    launcher["kubernetes"] |= {"image": "titanflow", "volumes": {"/": "all"}} | settings
    run = StageRun(stage="pretrain", experiment="e", run="r", folder=folder, config={"launcher": launcher})
    return resources(run, {"NAME": "value"}, attempt)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A stage's folder whose name a shell would take apart."""
    folder = tmp_path / "a run's $(folder)"
    folder.mkdir()
    (folder / "run.yaml").touch()
    return folder


def start(folder: Path, program: str, nodes: int = 1, node: int = 0) -> subprocess.Popen[str]:
    text = script([sys.executable, "-c", program], asked(folder, nodes))
    env = {**os.environ, "JOB_COMPLETION_INDEX": str(node)}
    return subprocess.Popen(["/bin/sh", "-c", text], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def noted(folder: Path) -> list[str]:
    return [path.read_text() for path in folder.glob("job-*.status")]


def test_a_folder_of_one_path_has_other_jobs_on_another_claim(folder: Path) -> None:
    parent = str(folder.parent)
    claims = [{parent: "mine"}, {parent: "theirs"}, {parent: "mine", "/elsewhere": "more"}]
    mine, theirs, still_mine = (identity(asked(folder, volumes=volumes)) for volumes in claims)
    assert mine == still_mine != theirs
    # By the beginning of its name a folder's job is told from that of the folder that it was copied from.
    assert all(name.startswith(f"{job_name('pretrain', folder)}-") for name in (mine, theirs))
    assert len(f"{identity(asked(folder, attempt=9999)).partition('.')[0]}-nodes-0-0-abcde") <= 63


def test_a_stage_s_output_is_logged_and_shown_and_its_status_noted(folder: Path) -> None:
    (folder / "pretrain.log").write_text("$ kubectl\n")
    pod = start(folder, "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    said, _ = pod.communicate()
    assert pod.returncode == 3
    assert sorted(said.split()) == ["err", "out"]
    assert (folder / "pretrain.log").read_text() == "$ kubectl\n" + said
    assert noted(folder) == ["3\n"]


def test_a_stage_that_is_told_to_end_may_save(folder: Path) -> None:
    # The signal may come within the print, which can't be called anew there.
    program = "import os, signal, sys; signal.signal(15, lambda *_: (os.write(1, b'saved\\n'), sys.exit(7)));"
    pod = start(folder, f"{program} print('ready', flush=True)\nwhile True: signal.pause()")
    wait_for(lambda: lines(folder / "pretrain.log"), "the stage")
    pod.send_signal(signal.SIGTERM)
    pod.communicate()
    assert pod.returncode == 7
    assert (folder / "pretrain.log").read_text() == "ready\nsaved\n"
    assert noted(folder) == ["7\n"]


@pytest.mark.parametrize("shell", [["/bin/sh"], ["bash", "--posix"]], ids=" ".join)
def test_a_stage_that_ends_before_its_shell_looks_again_keeps_its_status(folder: Path, shell: list[str]) -> None:
    # Here the signal's trap goes on until the shell has taken note of the stage's end, as a busy machine may have it.
    program = "import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); print('ready', flush=True)"
    given = script([sys.executable, "-c", f"{program}; signal.pause()"], asked(folder))
    kill = 'kill -TERM "$stage" 2>/dev/null;'
    assert kill in given
    text = given.replace(kill, f'{kill} while kill -0 "$stage" 2>/dev/null; do /bin/true; done;')
    pod = subprocess.Popen([*shell, "-c", text], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: lines(folder / "pretrain.log"), "the stage")
    children = psutil.Process(pod.pid).children
    wait_for(lambda: "sleep" not in [child.name() for child in children()], "the shell's wait for the stage")
    pod.send_signal(signal.SIGTERM)
    pod.communicate()
    assert pod.returncode == 7
    assert noted(folder) == ["7\n"]


def test_a_node_but_the_first_has_a_log_of_its_own(folder: Path) -> None:
    program = "import os; print(os.environ['PET_RDZV_CONF'])"
    for node in (0, 1):
        start(folder, program, nodes=2, node=node).communicate()
    (other,) = folder.glob("job-*.node-1.log")
    assert (folder / "pretrain.log").read_text().startswith("is_host=1,join_timeout=")
    assert other.read_text().startswith("is_host=0,join_timeout=")
    assert noted(folder) == ["0\n"]


def test_a_pod_without_the_stage_s_folder_says_so(folder: Path) -> None:
    (folder / "run.yaml").unlink()
    pod = start(folder, "print('started')")
    said, error = pod.communicate()
    assert (pod.returncode, said) == (74, "")
    assert f"has no {folder}" in error


@pytest.mark.parametrize(
    ("cpu", "threads"), [("16", "4"), ("2", "1"), ("7500m", "1"), ("10.5", "2"), ("", str(max(1, os.cpu_count() // 4)))]
)
def test_threads_are_those_asked_for(folder: Path, cpu: str, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    text = script(["printenv", "OMP_NUM_THREADS"], asked(folder, resources={"cpu": cpu} if cpu else {}))
    done = subprocess.run(["/bin/sh", "-c", text], capture_output=True, text=True)
    assert done.stdout.strip() == threads


def variables(given: Resources) -> dict[str, str]:
    template = manifest(["train"], given)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    return {one["name"]: one["value"] for one in template["spec"]["containers"][0]["env"]}


def test_pods_meet_on_the_first_under_an_id_of_their_job(tmp_path: Path) -> None:
    one, again = (manifest(["train"], asked(tmp_path, 2, attempt))["metadata"]["name"] for attempt in (1, 2))
    assert one != again
    found = variables(asked(tmp_path, 2))
    assert found[MEETING_POINT] == f"{one}-nodes-0-0.{one}:29400"
    assert found[MEETING_ID] == one
    assert MEETING_POINT not in variables(asked(tmp_path, 1))


def test_a_value_that_kubernetes_would_expand_stays_as_it_is(tmp_path: Path) -> None:
    found = variables(asked(tmp_path, env={"A": "$(NAME) $$ ${B} $C", "NAME": "mine"}))
    assert found["A"] == "$$(NAME) $$$ ${B} $C"
    # What a user sets goes before the project's own.
    assert found["NAME"] == "mine"


@pytest.mark.parametrize("delay", range(0, 40, 4))
def test_a_stage_that_is_told_to_end_as_it_begins_ends(folder: Path, delay: int) -> None:
    """A signal may come at any moment, and waits for the process that it is meant for."""
    # The first process of a container has no signal that ends it by itself; here it is told when it can bear it.
    given = script([sys.executable, "-c", "import signal; signal.pause()"], asked(folder))
    head, tail = given.split('tee -a "$log"')
    loop = f"n=0; while [ $n -lt {delay * 100} ]; do n=$((n + 1)); done"
    text = f'{head}({loop}; kill -TERM "$PPID") &\ntee -a "$log"{tail}'.replace('"$PPID"', "$main").replace(
        "stage= told=", "main=$$ stage= told="
    )
    done = subprocess.run(["/bin/sh", "-c", text], capture_output=True, text=True)
    assert done.returncode == 143, done.stderr
    assert noted(folder) == ["143\n"]
