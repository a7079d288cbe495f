"""The flow ``pretrain-sft``: from raw text to a published model, a task a stage."""

# No `from __future__ import annotations`: Prefect makes the UI's form from the parameters' real types.
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run
from prefect.states import Completed, State
from pydantic import Field

from flows.run_lock import run_lock
from tasks.evaluate import evaluate
from tasks.hub_token import check_token
from tasks.prepare import prepare
from tasks.pretrain import pretrain
from tasks.publish import push_to_hub
from tasks.results import HELD_BACK, headline, held_back, markdown, rows
from tasks.sft import sft
from titanflow.manifest import Manifest
from titanflow.plan import Plan, make_plan
from titanflow.report.render import write_report
from titanflow.stage import PublishResult, StageResult, Strict

DEFAULT_EXPERIMENT = "stdlib"
TASKS = {"prepare": prepare, "pretrain": pretrain, "sft": sft, "evaluate": evaluate, "publish": push_to_hub}


class Summary(Strict):
    """What a flow run hands back: where things are, not the things; ``held_back`` says why nothing was published."""

    experiment: str
    run: str
    folder: Path
    published: str = ""
    held_back: str = ""


def flow_run_name() -> str:
    """The experiment's name, and the run's where one was given."""
    parameters = flow_run.parameters
    experiment = Path(parameters.get("experiment", DEFAULT_EXPERIMENT)).stem
    run = parameters.get("run")
    return f"{experiment}-{dated(run)}" if run else experiment


@flow(name="pretrain-sft", flow_run_name=flow_run_name, persist_result=False)
def pretrain_sft(
    experiment: Annotated[str, Field(min_length=1)] = DEFAULT_EXPERIMENT,
    configs: str | None = None,
    run: str | None = None,
    pretrain_steps: Annotated[int | None, Field(ge=1)] = None,
    sft_steps: Annotated[int | None, Field(ge=1)] = None,
    pretrain_learning_rate: Annotated[float | None, Field(gt=0)] = None,
    sft_learning_rate: Annotated[float | None, Field(gt=0)] = None,
    nproc_per_node: Annotated[int | None, Field(ge=1)] = None,
    overrides: dict[str, Any] | None = None,
) -> Summary | State[Summary]:
    """Pretrains, fine-tunes, evaluates and publishes one experiment.

    A stage whose inputs haven't changed is CACHED; one that was interrupted resumes from its newest checkpoint.
    Where the gate holds the model back, the run ends completed, in the state "Held back".

    Args:
        experiment: Name of an experiment in configs/experiments, or its file.
        configs: Folder with experiments/, modules/ and models/; unset, titanflow's own.
        run: Name of the run's folder; {date} becomes the day that the run was scheduled for, in UTC.
        pretrain_steps: Sets pretrain.training.steps.
        sft_steps: Sets sft.training.steps.
        pretrain_learning_rate: Sets pretrain.optimizer.lr.
        sft_learning_rate: Sets sft.optimizer.lr.
        nproc_per_node: Sets launcher.nproc_per_node: the processes of every stage, one a GPU.
        overrides: Everything else, dotted key to value, as --set takes it. Goes before the parameters above.
    """
    knobs = {
        "pretrain.training.steps": pretrain_steps,
        "sft.training.steps": sft_steps,
        "pretrain.optimizer.lr": pretrain_learning_rate,
        "sft.optimizer.lr": sft_learning_rate,
        "launcher.nproc_per_node": nproc_per_node,
    }
    given = {key: value for key, value in knobs.items() if value is not None}
    plan = make_plan(experiment, configs, dated(run), {**given, **(overrides or {})})
    summary = run_plan(plan)
    if summary.held_back:
        return Completed(name=HELD_BACK, message=summary.held_back, data=summary)
    return summary


def run_plan(plan: Plan) -> Summary:
    """Runs a plan's stages in order, inside a flow run.

    Raises:
        ConfigError: a stage found its input unusable.
        StageFailed: a stage failed, or another process works on the same run.
        HubError: the model is to be pushed, and there is no token.
    """
    get_run_logger().info("%s/%s in %s", plan.experiment, plan.run, plan.folder)
    check_token(plan.stage("publish"))
    with run_lock(plan.folder):
        plan.write()
        manifest = Manifest.open(plan.folder)
        # Called directly: with a submitted task a cancel stalls for 30 s, and the stage has no time left to save.
        try:
            results: list[StageResult] = [
                TASKS[stage.stage](stage, manifest, return_state=True).result() for stage in plan.stages
            ]
        finally:
            leave_report(plan)
    show_summary(plan, results)
    published = [
        result.location for result in results if isinstance(result, PublishResult) and result.status == "published"
    ]
    return Summary(
        experiment=plan.experiment,
        run=plan.run,
        folder=plan.folder,
        published="".join(published),
        held_back=held_back(results),
    )


def show_summary(plan: Plan, results: list[StageResult]) -> None:
    """Leaves the run's summary as a markdown artifact; a UI that can't be reached costs no run."""
    sections = [f"## {plan.experiment} / {plan.run}", f"`{plan.folder}`"]
    for stage, result in zip(plan.stages, results, strict=True):
        sections += [f"### {stage.stage}: {headline(result)}", markdown(rows(result))]
    try:
        create_markdown_artifact("\n\n".join(sections), key="summary", description=f"{plan.experiment} {plan.run}")
    except Exception as error:
        get_run_logger().warning("the summary's artifact can't be made (%s)", error)


def leave_report(plan: Plan) -> None:
    """Writes ``report.html`` of what the stages came to, also where one failed; a report that fails costs no run."""
    try:
        get_run_logger().info("the report is %s", write_report(plan.folder))
    except Exception as error:
        get_run_logger().warning("the report can't be made (%s)", error)


def dated(run: str | None) -> str | None:
    """A run's name with ``{date}`` replaced by the day that the flow run was scheduled for, in UTC."""
    if run is None or "{date}" not in run:
        return run
    day = flow_run.scheduled_start_time or datetime.now(UTC)
    return run.replace("{date}", f"{day.astimezone(UTC):%Y-%m-%d}")
