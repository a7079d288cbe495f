"""A plan's stages, run in order inside a flow run: one task for each."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from prefect import Task, get_run_logger
from prefect.states import State

from flows.announce import announce, told
from flows.parameters.run_request import RunRequest
from flows.plan_artifact import leave_markdown, show_plan
from flows.run_lock import run_lock
from flows.sign_of_life import HOLDER_FILE
from flows.stage_in_pool import check_pools, stage_in_pool
from flows.verified_plan import verified_plan
from tasks.evaluate import evaluate
from tasks.hub_token import check_token
from tasks.jobs.follow import jobs_end_with
from tasks.prefer import prefer
from tasks.prepare import prepare
from tasks.pretrain import pretrain
from tasks.publish import push_to_hub
from tasks.rehearsal import rehearse
from tasks.retries import retrying
from tasks.sft import sft
from tasks.ui.labels import label_run
from tasks.ui.results import headline, held_back, links, markdown, rows
from tasks.ui.watcher import watcher
from titanflow.planning.evaluation.tasks import check_tasks
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.planning.view import check_stale
from titanflow.report.reconcile import reconciled, table_rows
from titanflow.report.render import REPORT_FILE, write_report
from titanflow.runs.contract import Strict
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import LEFT, PublishResult, StageResult

TASKS = {
    "prepare": prepare,
    "pretrain": pretrain,
    "sft": sft,
    "prefer": prefer,
    "evaluate": evaluate,
    "publish": push_to_hub,
}
"""The task of each kind of stage."""


class Summary(Strict):
    """What a flow run returns: where its results are; ``held_back`` says why nothing was published.

    ``proposed`` is the pull request in which a model waits for review. ``told`` is what there is to say of a published
    or a proposed one. Several publications stand behind each other. ``done_at`` is the time at which an earlier run
    finished the last stage, if it left nothing to do.
    """

    experiment: str
    run: str
    folder: Path
    published: str = ""
    proposed: str = ""
    held_back: str = ""
    told: str = ""
    done_at: str = ""


def run_plan(plan: Plan, request: RunRequest, wait: bool = True) -> Summary:
    """Runs a plan's stages in order, inside a flow run; from ``request`` other work pools make the same plan."""
    get_run_logger().info("%s/%s in %s", plan.experiment, plan.run, plan.folder)
    check_stale(plan)
    for stage in plan.of_kind("publish"):
        check_token(stage)
    check_pools(plan)
    label_run(plan.config.spec.retries, plan.config.who, plan.folder / HOLDER_FILE)
    here = [stage.run for stage in plan.stages if not stage.pool]
    with run_lock(plan.folder, wait, _tell) as waited, jobs_end_with(here, get_run_logger().warning):
        plan = verified_plan(plan, waited, get_run_logger().warning)
        # Again: a stage that was cached may run after all.
        check_pools(plan)
        plan.write()
        show_plan(plan)
        watcher().plans(plan)
        # Called directly: a cancel of a submitted task takes 30 s, which leaves the stage no time to save.
        try:
            results: list[StageResult] = []
            for stage in plan.stages:
                if stage.run.trains and stage.state != "CACHED":
                    rehearse(plan, _tell)
                results.append(_run(stage, plan, request))
        finally:
            leave_report(plan)
    show_summary(plan, results)
    announce(plan, results)
    left = [one for one in results if isinstance(one, PublishResult) and one.status in LEFT]
    return Summary(
        experiment=plan.experiment,
        run=plan.run,
        folder=plan.folder,
        published=", ".join(one.location for one in left if one.status == "published"),
        proposed=", ".join(one.location for one in left if one.status == "proposed"),
        held_back=held_back(results),
        told="; ".join(f"{one.status} as {one.location}: {told(one)}" for one in left),
        done_at=_finished(plan) if plan.is_cached else "",
    )


def _finished(plan: Plan) -> str:
    """When the last stage of a plan was finished."""
    return max((record.finished for record in Manifest.open(plan.folder).stages.values()), default="")


def _tell(text: str) -> None:
    get_run_logger().info(text)
    watcher().says(text)


def _run(stage: StagePlan, plan: Plan, request: RunRequest) -> StageResult:
    retries = plan.config.spec.retries
    if stage.pool and stage.state != "CACHED":
        elsewhere = request.elsewhere(plan, stage)
        return cast(StageResult, retrying(stage_in_pool, retries)(stage, elsewhere, return_state=True).result())
    # Read anew each time: a stage in another pool may have written into it.
    manifest = Manifest.open(plan.folder)
    result = cast(StageResult, retrying(task_of(stage), retries)(stage, manifest, return_state=True).result())
    if stage.kind == "prepare" and stage.state != "CACHED":
        # The items exist now: check the tasks' demands on them before anything is trained.
        check_tasks(plan.stages, plan.config.modules)
    return result


def task_of(stage: StagePlan) -> Task[..., StageResult | State]:
    """A stage's task, under the stage's own name; that of the publication ``publish`` stays ``push_to_hub``."""
    task = TASKS[stage.kind]
    return task if stage.stage == "publish" else task.with_options(name=stage.stage)


def show_summary(plan: Plan, results: list[StageResult]) -> None:
    sections = [f"## {plan.experiment} / {plan.run}", f"Folder: `{plan.folder}`, its report: `{REPORT_FILE}`"]
    found = reconciled(plan)
    sections += ["### Forecast → actual", markdown(table_rows(found))] if found else []
    for stage, result in zip(plan.stages, results, strict=True):
        sections += [f"### {stage.stage}: {headline(result)}", markdown(rows(result))]
        sections += [f"[{text}]({url})" for text, url in links(stage.run.folder, result).values()]
    leave_markdown("\n\n".join(sections), "summary", f"{plan.experiment} {plan.run}")


def leave_report(plan: Plan) -> None:
    """Writes ``report.html`` of the stages' results, also after a failure; a failed report is a warning."""
    # Data refused by the first step leaves no folder to report on.
    if not plan.folder.is_dir():
        return
    watcher().says("writing the report")
    try:
        get_run_logger().info("the report is %s", write_report(plan.folder))
    except Exception as error:
        get_run_logger().warning("the report can't be made (%s)", error)
