"""``titanflow run`` and ``titanflow plan``."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from titanflow.cli.app import (
    ConfigsOption,
    ExperimentArgument,
    JsonOption,
    OnlyOption,
    OnStaleOption,
    RunOption,
    SetOption,
    WorkspaceOption,
    err,
    out,
    print_json,
    show_warnings,
    with_options,
)


def run(
    experiment: ExperimentArgument = "stdlib",
    configs: ConfigsOption = None,
    run_name: RunOption = None,
    settings: SetOption = None,
    workspace: WorkspaceOption = None,
    only: OnlyOption = None,
    on_stale: OnStaleOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another run that works in the same folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run an experiment: every stage that isn't done yet."""
    from flows.run_lock import check_free
    from titanflow.planning.plan import make_plan, run_folder
    from titanflow.planning.view import check_stale

    own = with_options(settings, workspace=workspace, only=only)
    settings = with_options(own, on_stale=on_stale)
    folder = run_folder(experiment, configs, run_name, settings)
    if not wait:
        check_free(folder)
    with _left_jobs_told(folder):
        plan = make_plan(experiment, configs, run_name, settings)
        show_warnings(plan.config)
        print_plan(plan, err)
        check_stale(plan)
        if not plan.is_cached:
            from flows.server.prefect_settings import check_prefect_settings

            check_prefect_settings()
            with _live_view(plan, as_json):
                from flows.local_run import run_flow

                run_flow(experiment, None if configs is None else str(configs), run_name, settings, wait=wait)
    given = [("--configs", configs), ("--run", run_name), *(("--set", setting) for setting in own)]
    options = [word for name, value in given if value is not None for word in (name, str(value))]
    _print_results(plan, as_json, shlex.join([experiment, *options]))


@contextlib.contextmanager
def _left_jobs_told(folder: Path) -> Iterator[None]:
    """Names the jobs that an interrupted run may leave: an earlier one's, of which the flow hadn't heard yet."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        from tasks.jobs.job import unended

        for stage, job in unended(folder).items():
            told = f"{stage}: a job may still be there, which the next start follows; to end it: {job.to_end}"
            err.print(Text(told, style="yellow"), soft_wrap=True)
        raise


def _live_view(planned: Any, as_json: bool) -> contextlib.AbstractContextManager[None]:
    from flows.live.live_view import live_view

    return contextlib.nullcontext() if as_json else live_view(planned)


def plan(
    experiment: ExperimentArgument = "stdlib",
    configs: ConfigsOption = None,
    run_name: RunOption = None,
    settings: SetOption = None,
    workspace: WorkspaceOption = None,
    only: OnlyOption = None,
    on_stale: OnStaleOption = None,
    commands: Annotated[
        bool, typer.Option("--commands", help="Show each stage's command, and let torchrun check it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a run would do: each stage's state (RUN, RESUME, CACHED or STALE), and why it is STALE."""
    from titanflow.planning.plan import make_plan
    from titanflow.planning.view import inheritance_tables

    settings = with_options(settings, on_stale=on_stale, workspace=workspace, only=only)
    planned = make_plan(experiment, configs, run_name, settings, runs_here=False)
    show_warnings(planned.config)
    if as_json:
        print_json(planned.as_json())
        return
    out.print(f"{planned.experiment} / {planned.run}   {planned.folder}")
    print_plan(planned, out)
    out.print(inheritance_tables(planned))
    if commands:
        _print_commands(planned)


def print_plan(planned: Any, console: Console) -> None:
    from titanflow.planning.forecast.table import forecast_table
    from titanflow.planning.view import plan_table

    console.print(plan_table(planned))
    console.print(forecast_table(planned.stages))


def _print_commands(planned: Any) -> None:
    from titanflow.common.errors import ConfigError
    from titanflow.planning.launch_checks import torchrun_problems
    from titanflow.planning.view import command_lines

    for line in command_lines(planned):
        out.print(Text(line))
    if problems := torchrun_problems(planned.stages):
        raise ConfigError(problems)


def _print_results(planned: Any, as_json: bool, options: str) -> None:
    from titanflow.files.own_files import read_mapping
    from titanflow.report.summary import render_summary
    from titanflow.runs.contract import RESULT_FILE

    if as_json:
        files = [stage.run.folder / RESULT_FILE for stage in planned.stages]
        print_json({path.parent.name: read_mapping(path) for path in files if path.exists()})
    else:
        out.print(render_summary(planned, options))
