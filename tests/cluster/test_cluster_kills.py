"""Random kills over a run of two nodes: what it computes is the undisturbed run's to the bit, and is published once.

``--kills-seed N`` repeats a session's victims and moments, ``--kills N`` says how many there are.
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from cluster_runs import ON_ONE_MACHINE, ClusterRun
from cluster_table import RECORD
from local_hub import LocalHub
from local_slurm import NODES, LocalSlurm
from scene import Administrator, Doubles, living_jobs, orphans, roles, wait_none
from tiny_experiment import write_tiny_experiment
from watching import wait_for

from titanflow.runs.results import EvaluateResult, PublishResult, read_result

pytestmark = [pytest.mark.cluster_matrix, pytest.mark.slow]

ROLES = ("rank", "agent", "srun", "shell")
REPAIR = 30.0
"""Seconds after which, at most, a daemon or node is started again: a node is given up after 15 s."""
STEPS = {"pretrain": 100, "sft": 40}
STAGES = ("pretrain", "sft", "evaluate", "publish")
"""The stages that are killed. A run that is through leaves what is left of the kills to another."""
SETTINGS = (
    *(f"{stage}.training.steps={steps}" for stage, steps in STEPS.items()),
    *("pretrain.checkpoint.interval=5", "sft.checkpoint.interval=5", "evaluate.launcher.nnodes=2"),
    *("publish.target=hub", "retries.lost=50", "retries.delay=1"),
)


def kill_one(slurm: LocalSlurm, run: ClusterRun, choose: random.Random) -> tuple[str, Callable[[], None]]:
    """Kills a random one of all that can be killed now; returns its name, and what an administrator does then."""
    found = {role: [process for node in NODES for process in roles(slurm, node)[role]] for role in ROLES}
    kinds = ["flow", "slurmctld", "slurmd", "power", *(role for role in ROLES if found[role])]
    kind, node = choose.choice(kinds), choose.choice(sorted(NODES))
    if kind == "flow":
        assert run.flow is not None
        run.flow.kill()
        run.flow.wait()
        return kind, nothing
    if kind == "slurmctld":
        slurm.stop_controller()
        return kind, slurm.start_controller
    if kind == "slurmd":
        slurm.kill_slurmd(node)
        return f"slurmd of {node}", lambda: slurm.start_slurmd(node)
    if kind == "power":
        slurm.power_off(node)
        return f"power of {node}", lambda: slurm.power_on(node)
    with contextlib.suppress(psutil.Error):
        choose.choice(found[kind]).kill()
    return kind, nothing


def nothing() -> None:
    """There is nothing to put right: the run does so itself, or is started again."""


@pytest.fixture(scope="module")
def hub(slurm: LocalSlurm) -> Iterator[LocalHub]:
    """A Hub beside the controller."""
    with slurm.entered(), LocalHub() as hub:
        yield hub


def stage_of(run: ClusterRun) -> str:
    """The last stage that the run has begun."""
    begun = [stage for stage in STAGES if (run.folder / stage / "run.yaml").exists()]
    return begun[-1] if begun else "prepare"


def is_published(run: ClusterRun) -> bool:
    return (run.folder / "publish" / "result.json").exists()


def scores(run: ClusterRun) -> tuple[object, object]:
    """The scores, and the digests of what was scored."""
    result = read_result(run.folder / "evaluate")
    assert isinstance(result, EvaluateResult)
    return result.scores, result.digests


def test_random_kills(
    slurm: LocalSlurm, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    seed = pytestconfig.getoption("--kills-seed")
    seed = random.randrange(10**6) if seed is None else seed
    print(f"--kills-seed {seed}")
    choose, record, kills = random.Random(seed), pytestconfig.stash[RECORD], pytestconfig.getoption("--kills")
    write_tiny_experiment(tmp_path)
    for key, value in {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1"}.items():
        monkeypatch.setitem(slurm.env, key, value)
    undisturbed = new_run(slurm, tmp_path, "undisturbed", (*ON_ONE_MACHINE, "evaluate.launcher.nnodes=1"))
    undisturbed.start()
    assert undisturbed.wait() == 0, undisturbed.output.read_text()[-3000:]
    longest = {stage: seconds_of(undisturbed.folder / stage) for stage in STAGES}
    print(f"seconds of the undisturbed run's stages: {longest}", flush=True)

    runs: list[ClusterRun] = []
    moments, began = [], time.monotonic()
    with Doubles(slurm) as doubles, Administrator(slurm) as administrator:
        while len(moments) < kills:
            runs.append(run := new_run(slurm, tmp_path, f"killed-{len(runs) + 1}"))
            while len(moments) < kills and (stage := stage_at_work(run)):
                # A moment of its start-up, its steps, its saves or its end, as long as those take on this machine.
                time.sleep(choose.uniform(0.0, longest[stage]))
                if is_published(run):
                    break
                at, step = stage_of(run), run.step()
                victim, mend = kill_one(slurm, run, choose)
                moments.append(f"{victim} in {run.name}'s {at}")
                print(f"kill {len(moments)}: {moments[-1]}, {time.monotonic() - began:.0f} s, step {step}", flush=True)
                if mend is not nothing:
                    time.sleep(choose.uniform(0.0, REPAIR))
                    mend()
            finish(run)
        seconds = time.monotonic() - began
    equal = {
        run.name: {stage: run.losses(stage) == undisturbed.losses(stage) for stage in STEPS}
        | {"scores": scores(run) == scores(undisturbed)}
        for run in runs
    }
    commits = {name: len(repo.commits) for name, repo in hub.repos.items()}
    left = wait_none(lambda: [str(process) for process in slurm.processes()])
    record.kills += [
        f"seed {seed}, {len(moments)} kills in {seconds:.0f} s over {len(runs)} runs: {'; '.join(moments)}",
        f"equal to the undisturbed run, to the bit: {equal}",
        f"commits on the Hub: {commits}",
        f"orphans at the end: {len(left)}; looks that found two living jobs of a stage: {len(doubles.found)}",
        f"nodes that Slurm drained, put back by hand: {administrator.found or 'none'}",
    ]
    for run in runs:
        assert {stage: len(run.losses(stage)) for stage in STEPS} == STEPS
        assert isinstance(read_result(run.folder / "publish"), PublishResult)
    assert all(all(same.values()) for same in equal.values()), equal
    assert set(commits.values()) == {commits[repo_of("undisturbed")]}, commits
    assert (left, orphans(slurm), living_jobs(slurm), doubles.found) == ([], [], [], [])


def new_run(slurm: LocalSlurm, root: Path, name: str, settings: tuple[str, ...] = ()) -> ClusterRun:
    """A run that publishes to a repository of its own."""
    return ClusterRun(slurm, root, name, (*SETTINGS, *settings, f"publish.repo_id={repo_of(name)}"))


def repo_of(name: str) -> str:
    return f"team/{name}"


def finish(run: ClusterRun) -> None:
    """Waits for a run's end; starts it again when it ends without, as somebody would who read why."""
    start_if_over(run)
    while (status := run.wait()) != 0 or not is_published(run):
        print(f"ended with {status}: {run.output.read_text()[-600:]}", flush=True)
        start_if_over(run)


def stage_at_work(run: ClusterRun) -> str:
    """Waits until processes of a stage are there, and returns its name; empty once the run has published. Starts a run
    again that has ended."""

    def found() -> str:
        start_if_over(run)
        if is_published(run):
            return "published"
        now = stage_of(run)
        wanted = str(run.folder / now / "run.yaml")
        works = any(wanted in (process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
        return now if works and now in STAGES else ""

    stage = wait_for(found, f"a stage of {run.name}", 600)
    return "" if stage == "published" else stage


def seconds_of(folder: Path) -> float:
    """How long a stage took, from its beginning to its result."""
    return round((folder / "result.json").stat().st_mtime - (folder / "run.yaml").stat().st_mtime, 1)


def start_if_over(run: ClusterRun) -> None:
    """Starts the run, or starts it again, unless it goes or has published."""
    if run.flow is None or (run.flow.poll() is not None and not (run.flow.returncode == 0 and is_published(run))):
        run.start()
