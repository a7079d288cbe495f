"""The flow ``pretrain-sft``: from raw text to a published model, a task a stage."""

# No `from __future__ import annotations`: Prefect makes the UI's form from the parameters' real types.
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, State
from pydantic import Field

from flows.night import run_night, scheduled_day
from flows.run_plan import Summary, run_plan
from tasks.results import HELD_BACK
from titanflow.config.experiment_spec import OnStale
from titanflow.plan import make_plan

DEFAULT_EXPERIMENT = "stdlib"


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
    night: bool = False,
    pretrain_steps: Annotated[int | None, Field(ge=1)] = None,
    sft_steps: Annotated[int | None, Field(ge=1)] = None,
    pretrain_learning_rate: Annotated[float | None, Field(gt=0)] = None,
    sft_learning_rate: Annotated[float | None, Field(gt=0)] = None,
    nproc_per_node: Annotated[int | None, Field(ge=1)] = None,
    on_stale: OnStale | None = None,
    wait: bool = True,
    overrides: dict[str, Any] | None = None,
) -> Summary | State[Summary]:
    """Pretrains, fine-tunes, evaluates and publishes one experiment.

    A stage whose inputs haven't changed is CACHED; one that was interrupted resumes from its newest checkpoint.
    What was made from other inputs is STALE, and refused unless on_stale says otherwise.
    Where the gate holds the model back, the run ends completed, in the state "Held back".

    Args:
        experiment: Name of an experiment in configs/experiments, or its file.
        configs: Folder with experiments/, modules/ and models/; unset, titanflow's own.
        run: Name of the run's folder; {date} becomes the day that the run was scheduled for, in its schedule's
            time zone.
        night: Whether the run is the night's of that day: what the experiment's `nightly` says is done.
        pretrain_steps: Sets pretrain.training.steps.
        sft_steps: Sets sft.training.steps.
        pretrain_learning_rate: Sets pretrain.optimizer.lr.
        sft_learning_rate: Sets sft.optimizer.lr.
        nproc_per_node: Sets launcher.nproc_per_node: the processes of every stage, one a GPU.
        on_stale: What becomes of a stage that was made from other inputs; unset, as the experiment says (error).
        wait: Whether to wait for another run of the same folder; otherwise this one fails.
        overrides: Everything else, dotted key to value, as --set takes it. Goes before the parameters above.
    """
    knobs = {
        "pretrain.training.steps": pretrain_steps,
        "sft.training.steps": sft_steps,
        "pretrain.optimizer.lr": pretrain_learning_rate,
        "sft.optimizer.lr": sft_learning_rate,
        "launcher.nproc_per_node": nproc_per_node,
        "on_stale": on_stale,
    }
    given = {key: value for key, value in knobs.items() if value is not None}
    settings = {**given, **(overrides or {})}

    def work(name: str | None, settings: Mapping[str, Any]) -> Summary:
        return run_plan(make_plan(experiment, configs, name, settings), wait)

    name = dated(run)
    ended = run_night(experiment, configs, name, settings, work) if night else work(name, settings)
    if isinstance(ended, Summary) and ended.held_back:
        return Completed(name=HELD_BACK, message=ended.held_back, data=ended)
    return ended


def dated(run: str | None) -> str | None:
    """A run's name with ``{date}`` replaced by the day that the flow run was scheduled for."""
    if run is None or "{date}" not in run:
        return run
    return run.replace("{date}", scheduled_day())
