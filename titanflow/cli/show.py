"""``titanflow config``, ``masks`` and ``report``: the values of a run, what it trains, and its results."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from titanflow.cli.app import (
    ConfigsOption,
    ExperimentArgument,
    JsonOption,
    RunOption,
    SetOption,
    WorkspaceOption,
    out,
    print_json,
    show_warnings,
    with_options,
)
from titanflow.cli.completion import module_names
from titanflow.config.reference.kinds import Kind


def config(
    experiment: ExperimentArgument = "stdlib",
    configs: ConfigsOption = None,
    module: Annotated[
        str | None,
        typer.Option("--module", help="Only this module's values.", metavar="MODULE", autocompletion=module_names),
    ] = None,
    settings: SetOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="Show where each value comes from.")] = False,
    as_json: JsonOption = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Print every key there is, with its text, as Markdown.")
    ] = False,
    json_schema: Annotated[
        Kind | None, typer.Option("--json-schema", help="Print the JSON schema of such files, for an editor.")
    ] = None,
) -> None:
    """Print the values that each stage will get; or what keys there are."""
    if reference:
        from titanflow.config.reference.pages import reference as all_keys

        sys.stdout.write(all_keys())
        return
    if json_schema is not None:
        from titanflow.config.reference.editor import editor_schema

        print_json(editor_schema(json_schema))
        return
    from titanflow.cli.values import resolved_values, value_lines
    from titanflow.config.experiment import load_experiment
    from titanflow.config.overrides import parse_settings

    loaded = load_experiment(experiment, configs, parse_settings(settings or []), starts=False)
    show_warnings(loaded)
    values = resolved_values(loaded, module)
    if as_json:
        print_json({key: {"value": value, "origin": where} for key, (value, where) in values.items()})
        return
    for line in value_lines(values, origin):
        out.print(line)


def masks(
    experiment: ExperimentArgument = "stdlib",
    configs: ConfigsOption = None,
    run_name: RunOption = None,
    settings: SetOption = None,
    workspace: WorkspaceOption = None,
    module: Annotated[
        str | None,
        typer.Option("--module", help="The module whose data is shown.", metavar="MODULE", autocompletion=module_names),
    ] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", min=0, help="The rows shown of each source; by default 5, with --json all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prepare a module's conversations, prove their masks, and show which tokens are trained."""
    from titanflow.cli.values import check_module
    from titanflow.planning.plan import make_plan
    from titanflow.report.masks import prepare_masks

    planned = make_plan(experiment, configs, run_name, with_options(settings, workspace=workspace))
    show_warnings(planned.config)
    if module is not None:
        check_module(planned.config, module)
    prepared = prepare_masks(planned, module)
    if as_json:
        sys.stdout.write(json.dumps(prepared.as_json(rows)) + "\n")
    else:
        out.print(prepared.render(5 if rows is None else rows))


def report(
    experiment: ExperimentArgument = "stdlib",
    configs: ConfigsOption = None,
    run_name: RunOption = None,
    settings: SetOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write a run's report, one page that opens anywhere: report.html in the run's folder."""
    from titanflow.planning.plan import run_folder
    from titanflow.report.render import write_report

    out.print(write_report(run_folder(experiment, configs, run_name, with_options(settings, workspace=workspace))))
