"""What every stage's task does: return the stored result, or start the process, follow it, and record it."""

from __future__ import annotations

from collections.abc import Callable

from prefect import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from tasks.device_lock import device_lock
from tasks.launch import launch
from tasks.progress import Progress
from tasks.results import HELD_BACK, gate_lines, headline, held_back
from titanflow.manifest import Manifest
from titanflow.plan import StagePlan, begin_stage
from titanflow.stage import StageResult, read_result


def run_stage(plan: StagePlan, manifest: Manifest, secrets: Callable[[], dict[str, str]] = dict) -> StageResult | State:
    """Brings one stage to its end; a stage that is CACHED ends at once, in a state of that name.

    A model that the gate holds back ends its stage in a state of that name, which is no failure.
    ``secrets`` gives the part of the process's environment that nothing records; it is called when one starts.

    Raises:
        ConfigError: the stage found its input unusable.
        StageFailed: it failed, was stopped or was killed.
    """
    logger = get_run_logger()
    if plan.state == "CACHED":
        result = read_result(plan.run.folder)
        logger.info("%s CACHED: %s (%s)", plan.stage, headline(result), plan.reason)
        return Completed(name="Cached", message=plan.reason, data=result)
    logger.info("%s %s: %s", plan.stage, plan.state, plan.reason)
    environment = {**plan.env, **secrets()}
    begin_stage(plan)
    manifest.record_start(plan, str(flow_run.id or ""))
    progress = Progress(plan.run, logger)
    with device_lock(plan.run, logger.info):
        result = launch(plan.stage, plan.run.folder, plan.command, environment, progress)
    manifest.record_finish(plan, result)
    progress.finish(result)
    for line in gate_lines(result):
        logger.info("gate: %s", line)
    logger.info("%s finished: %s", plan.stage, headline(result))
    if reason := held_back([result]):
        return Completed(name=HELD_BACK, message=reason, data=result)
    return result
