"""The flow ``run-stage``: one stage, in this worker's work pool, of a run that another flow run holds."""

# No `from __future__ import annotations`: Prefect checks the parameters by their real types.
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State

from flows.interruption.by_server import heeding_server
from flows.run_plan import task_of
from flows.sign_of_life import HOLDER_FILE, sign_of_life
from tasks.jobs.follow import jobs_end_with
from tasks.stage_task import has_begun, resumed
from tasks.ui.labels import label_run
from titanflow.common.errors import ConfigError, Problem, TitanflowError
from titanflow.common.staging import full_disk_told
from titanflow.config.keys.experiment import WHO, Retries
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.runs.manifest import Manifest


@flow(name="run-stage", persist_result=False)
def run_stage(
    experiment: str,
    configs: str | None,
    run: str,
    settings: dict[str, Any],
    stage: str,
    folder: str,
    fingerprint: str,
    attempt: int = 1,
) -> State[Any]:
    """Runs one stage for the flow run that holds the run's folder; a failure's state is named after its class.

    Args:
        experiment: Name or file of the experiment.
        configs: Folder with experiments/, modules/, models/ and data/, or with what differs from titanflow's own.
        run: Name of the run's folder.
        settings: Dotted key to value, over the config.
        stage: Which stage.
        folder: The stage's folder, which has to be the same here.
        fingerprint: What the stage was planned to be made from, likewise.
        attempt: From the second on it goes on in its folder, and so it does if the flow run itself runs again, as after
            the eviction of its pod.
    """
    try:
        sign = Path(folder).with_name(f"{HOLDER_FILE}-{stage}")
        # Only the holding run retries the stage.
        label_run(Retries(lost=0), {key: settings.get(key, "") for key in WHO}, sign)
        # runs_here=False: other stages needn't be able to run on this machine.
        plan = make_plan(experiment, configs, run, settings, False)
        own = same_stage(plan, stage, folder, fingerprint)
        is_again = attempt > 1 or (flow_run.run_count or 1) > 1
        if is_again and own.state != "CACHED" and has_begun(own.run):
            own = resumed(own)
        with heeding_server(), full_disk_told(), sign_of_life(sign), jobs_end_with([own.run], _warn):
            task_of(own)(own, Manifest.open(plan.folder), return_state=True).result()
    except TitanflowError as error:
        return Failed(name=type(error).__name__, message=str(error))
    return Completed(message=str(own.run.folder))


def _warn(text: str) -> None:
    get_run_logger().warning(text)


def same_stage(plan: Plan, stage: str, folder: str, fingerprint: str) -> StagePlan:
    """The stage of a plan, refused if it would be made in another folder or from other inputs than asked for."""
    own = plan.stage(stage)
    key = f"{stage}.launcher.pool"
    if own is None or str(own.run.folder) != folder:
        found = f"planned in {own.run.folder} here" if own is not None else "not planned here"
        hint = "all machines need the workspace at the same path, on storage that they share"
        raise ConfigError(Problem(f"the stage is {found}", key, expected=folder, hint=hint))
    if own.run.fingerprint != fingerprint:
        hint = "all machines need the same configs, data and versions of titanflow and torchtitan"
        found = f"the stage would be made from other inputs here ({own.run.fingerprint})"
        raise ConfigError(Problem(found, key, expected=fingerprint, hint=hint))
    return own
