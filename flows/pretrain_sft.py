"""The flow ``pretrain-sft``: from raw text to a published model, a task a stage."""

# No `from __future__ import annotations`: Prefect makes the UI's form from the parameters' real types.
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State
from pydantic import Field, WithJsonSchema

from flows.interruption.by_server import heeding_server
from flows.night import run_night, scheduled_day
from flows.parameters.form import KEYS, Evaluate, Pretrain, Publish, Sft, StageForm
from flows.parameters.run_request import RunRequest
from flows.parameters.settings import KNOBS, run_title, settings_from_parameters
from flows.run_lock import check_free
from flows.run_plan import Summary, run_plan
from tasks.ui.results import HELD_BACK
from titanflow.common.errors import ConfigError, TitanflowError
from titanflow.common.staging import full_disk_told
from titanflow.config.experiment import experiment_name
from titanflow.config.keys import bounds
from titanflow.config.keys.on_stale import OnStale
from titanflow.config.overrides import parameter_settings
from titanflow.planning.plan import DEFAULT_RUN, make_plan, run_folder

DEFAULT_EXPERIMENT = "stdlib"

# In the UI's form an empty field, not a choice between a value and null.
Text = Annotated[str | None, WithJsonSchema({"type": "string"})]
Count = Annotated[int | None, Field(ge=1), WithJsonSchema({"type": "integer", **bounds.COUNT})]
Rate = Annotated[float | None, Field(ge=0), WithJsonSchema({"type": "number", **bounds.NATURAL})]


def flow_run_name() -> str:
    """The name of this flow run; Prefect calls it."""
    return title(flow_run.parameters, scheduled_day)


def title(parameters: Mapping[str, Any], day: Callable[[], str]) -> str:
    """The name of a run with these parameters: experiment, run, and settings, as ``stdlib/main pretrain.steps=200``.

    ``day`` is asked for the day of a run whose name has it.
    """
    experiment = parameters.get("experiment", DEFAULT_EXPERIMENT)
    knobs = {name: parameters.get(name) for name in KNOBS}
    forms = {stage: form for stage in KEYS if isinstance(form := parameters.get(stage), StageForm)}
    # What is wrong with either, the run itself says.
    settings: dict[str, Any] = {}
    named = Path(experiment).stem
    with suppress(ConfigError):
        settings = settings_from_parameters(knobs, forms, parameters.get("overrides"))
        named = experiment_name(experiment, parameters.get("configs"), parameter_settings(settings))
    return run_title(named, dated(parameters.get("run"), day) or DEFAULT_RUN, settings)


@flow(name="pretrain-sft", flow_run_name=flow_run_name, persist_result=False)
def pretrain_sft(
    experiment: Annotated[str, Field(min_length=1)] = DEFAULT_EXPERIMENT,
    configs: Text = None,
    run: Text = None,
    night: bool = False,
    pretrain_steps: Count = None,
    sft_steps: Count = None,
    pretrain_learning_rate: Rate = None,
    sft_learning_rate: Rate = None,
    nproc_per_node: Count = None,
    on_stale: OnStale | None = None,
    wait: bool = True,
    pretrain: Pretrain = Pretrain(),  # noqa: B008  (Prefect reads the form's default here)
    sft: Sft = Sft(),  # noqa: B008
    evaluate: Evaluate = Evaluate(),  # noqa: B008
    publish: Publish = Publish(),  # noqa: B008
    overrides: dict[str, Any] | None = None,
) -> Summary | State[Summary]:
    """Pretrains, fine-tunes, evaluates and publishes one experiment.

    A stage whose inputs haven't changed is CACHED; one that was interrupted resumes from its newest checkpoint.
    A stage that was made from other inputs is STALE, and the run is refused unless on_stale says otherwise.
    If the gate holds the model back, the run completes in the state "Held back". A night that an earlier run has done
    completes in the state "Done before", whose message says when.

    Args:
        experiment: Name of an experiment in configs/experiments, its file, or the experiment itself as JSON.
        configs: Folder with experiments/, modules/, models/ and data/, or with what differs from titanflow's own.
        run: Name of the run's folder; {date} becomes the day that the run was scheduled for, in its schedule's
            time zone.
        night: Whether this is the nightly run of that day, which does what the experiment's `nightly` says.
        pretrain_steps: Sets pretrain.training.steps.
        sft_steps: Sets sft.training.steps.
        pretrain_learning_rate: Sets pretrain.optimizer.lr.
        sft_learning_rate: Sets sft.optimizer.lr.
        nproc_per_node: Sets launcher.nproc_per_node: the processes of every stage, one a GPU.
        on_stale: What to do with a stage that was made from other inputs; unset, as the experiment says (error).
        wait: Whether to wait for another run of the same folder; otherwise this one fails.
        pretrain: Settings of pretraining; what isn't set stays as the experiment has it.
        sft: Settings of fine-tuning, likewise.
        evaluate: Settings of the evaluation, likewise.
        publish: Settings of publishing, likewise.
        overrides: Everything else, dotted key to value, as --set takes it.
    """
    knobs = {
        "pretrain_steps": pretrain_steps,
        "sft_steps": sft_steps,
        "pretrain_learning_rate": pretrain_learning_rate,
        "sft_learning_rate": sft_learning_rate,
        "nproc_per_node": nproc_per_node,
        "on_stale": on_stale,
    }
    forms = {"pretrain": pretrain, "sft": sft, "evaluate": evaluate, "publish": publish}
    settings = settings_from_parameters(knobs, forms, overrides)

    def work(name: str | None, settings: Mapping[str, Any]) -> Summary:
        request = RunRequest(experiment, configs, name, settings)
        if not wait:
            check_free(run_folder(*request))
        return run_plan(make_plan(*request), request, wait)

    name = dated(run, scheduled_day)
    try:
        with heeding_server(), full_disk_told():
            ended = run_night(experiment, configs, name, settings, work) if night else work(name, settings)
    except TitanflowError as error:
        # Raised, it would be logged as a traceback, and its first line alone before that.
        get_run_logger().error("%s", error)
        return Failed(message=str(error), data=error)
    if isinstance(ended, Summary) and ended.held_back:
        return Completed(name=HELD_BACK, message=ended.held_back, data=ended)
    if isinstance(ended, Summary) and ended.told:
        return Completed(message=ended.told, data=ended)
    return ended


def dated(run: str | None, day: Callable[[], str]) -> str | None:
    """A run's name with ``{date}`` replaced by the day that the flow run was scheduled for."""
    return run.replace("{date}", day()) if run and "{date}" in run else run
