"""``titanflow``: run, plan, config, masks, report, export, verify, chat, prove-resume, prove-losses, benchmark, nights
and patches.

Exit status 0 on success, 2 on bad input, 1 on a run that failed. What was asked for goes to stdout (as JSON
with ``--json``), everything else to stderr. Prefect and torch are imported by the commands that need them.
"""

from __future__ import annotations

import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from titanflow.config.experiment_spec import OnStale
from titanflow.console import Output
from titanflow.errors import TitanflowError
from titanflow.utf8_mode import STREAMS, restart_in_utf8_mode, stream_encoding

app = typer.Typer(
    help="From raw text to a published model: pretrain, fine-tune, evaluate, publish.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The command. Nothing is imported from the folder one stands in, names are UTF-8 in whatever locale, and what the
    terminal's encoding lacks is replaced.
    """
    restart_in_utf8_mode()
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    # How the terminal is written to is no affair of what is started: logs are UTF-8.
    os.environ.pop(STREAMS, None)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()


out, err = Output(), Output(stderr=True)

INTERRUPTED = 130

ExperimentArgument = Annotated[str, typer.Argument(help="An experiment's name, or its file.", metavar="EXPERIMENT")]
ConfigsOption = Annotated[Path | None, typer.Option("--configs", help="Another folder of configs.", metavar="DIR")]
RunOption = Annotated[str | None, typer.Option("--run", help="The run's name: its folder, and the tag it publishes.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set a value: pretrain.training.steps=100. May be given often.", metavar="KEY=VALUE"),
]
OnStaleOption = Annotated[
    OnStale | None,
    typer.Option("--on-stale", help="What was made from other inputs: refuse it, make it again, or use it as it is."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Command = TypeVar("Command", bound=Callable[..., Any])


def reports_errors(function: Command) -> Command:
    """Prints an error that is the user's to mend as one message, and ends with its exit status."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except TitanflowError as error:
            err.print(Text.assemble(("error: ", "bold red"), str(error)))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            err.print("interrupted; a run goes on from its newest checkpoint")
            raise typer.Exit(INTERRUPTED) from None

    return wrapper  # type: ignore[return-value]


@app.command()
@reports_errors
def run(
    experiment: ExperimentArgument = "stdlib",
    configs: ConfigsOption = None,
    run_name: RunOption = None,
    settings: SetOption = None,
    on_stale: OnStaleOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another run that works in the same folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run an experiment: every stage that isn't done yet."""
    from titanflow.plan import make_plan
    from titanflow.plan_view import check_stale

    settings = _settings(settings, on_stale)
    plan = make_plan(experiment, configs, run_name, settings)
    _warn(plan.config)
    _print_plan(plan, err)
    _print_forecast(err, plan)
    check_stale(plan)
    if not plan.is_cached:
        from flows.local_run import run_flow

        run_flow(experiment, None if configs is None else str(configs), run_name, settings, wait=wait)
    _print_results(plan, as_json)


@app.command()
@reports_errors
def plan(
    experiment: ExperimentArgument = "stdlib",
    configs: ConfigsOption = None,
    run_name: RunOption = None,
    settings: SetOption = None,
    on_stale: OnStaleOption = None,
    commands: Annotated[
        bool, typer.Option("--commands", help="Show what starts each stage; try it on torchrun.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a run would do: each stage RUN, RESUME, CACHED or STALE, and of what is STALE what changed."""
    from titanflow.plan import make_plan
    from titanflow.plan_view import inheritance_tables

    planned = make_plan(experiment, configs, run_name, _settings(settings, on_stale), runs_here=False)
    _warn(planned.config)
    if as_json:
        print_json(planned.as_json())
        return
    out.print(f"{planned.experiment} / {planned.run}   {planned.folder}")
    _print_plan(planned, out)
    _print_forecast(out, planned)
    out.print(inheritance_tables(planned))
    if commands:
        _print_commands(planned)


@app.command()
@reports_errors
def config(
    experiment: ExperimentArgument = "stdlib",
    configs: ConfigsOption = None,
    module: Annotated[str | None, typer.Option("--module", help="Only this module's values.")] = None,
    settings: SetOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="Show where each value comes from.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print what a stage will get."""
    from titanflow.config.experiment import load_experiment
    from titanflow.config.overrides import parse_settings
    from titanflow.config.values import resolved_values, value_lines

    loaded = load_experiment(experiment, configs, parse_settings(settings or []), starts=False)
    _warn(loaded)
    values = resolved_values(loaded, module)
    if as_json:
        print_json({key: {"value": value, "origin": where} for key, (value, where) in values.items()})
        return
    for line in value_lines(values, origin):
        out.print(line)


@app.command()
@reports_errors
def masks(
    experiment: ExperimentArgument = "stdlib",
    configs: ConfigsOption = None,
    run_name: RunOption = None,
    settings: SetOption = None,
    module: Annotated[str | None, typer.Option("--module", help="The module whose data is shown.")] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", min=0, help="So many rows of each source; 5, or with --json all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prepare a module's conversations, prove their masks, and show which tokens are trained."""
    from titanflow.masks import prepare_masks
    from titanflow.plan import make_plan

    planned = make_plan(experiment, configs, run_name, settings or [])
    _warn(planned.config)
    prepared = prepare_masks(planned, module)
    if as_json:
        sys.stdout.write(json.dumps(prepared.as_json(rows)) + "\n")
    else:
        out.print(prepared.render(5 if rows is None else rows))


@app.command()
@reports_errors
def report(
    experiment: ExperimentArgument = "stdlib",
    configs: ConfigsOption = None,
    run_name: RunOption = None,
    settings: SetOption = None,
) -> None:
    """Write a run's report, one page that opens anywhere: report.html in the run's folder."""
    from titanflow.plan import run_folder
    from titanflow.report.render import write_report

    out.print(write_report(run_folder(experiment, configs, run_name, settings or [])))


@app.command()
@reports_errors
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A stage's folder, or a checkpoint in it.", metavar="CKPT")],
    folder: Annotated[Path, typer.Argument(help="The folder to write.", metavar="OUT")],
    adapter: Annotated[bool, typer.Option("--adapter", help="Of a LoRA stage the adapter alone, for PEFT.")] = False,
) -> None:
    """Write a checkpoint as a folder that transformers loads."""
    start_module("titan.peft_adapter" if adapter else "titan.export", str(checkpoint), str(folder))


@app.command()
@reports_errors
def verify(
    published: Annotated[str, typer.Argument(help="A folder, or owner/name on the Hub.", metavar="FOLDER_OR_REPO")],
    revision: Annotated[str | None, typer.Option("--revision", help="A branch, tag or commit; main.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a published model: its hashes, that it loads, and that it says what it said when it was evaluated."""
    revisions = [] if revision is None else [f"--revision={revision}"]
    start_module("titan.verify", *revisions, *(["--json"] if as_json else []), "--", published)


@app.command()
@reports_errors
def chat(
    models: Annotated[list[str], typer.Argument(help="Folders, stages, or owner/name[@revision].", metavar="MODEL…")],
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="The most tokens of an answer.")] = 256,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="0 takes the likeliest token.")] = 0.0,
    system: Annotated[str | None, typer.Option("--system", help="What the conversation begins with.")] = None,
) -> None:
    """Talk with a model, or with several side by side; without a terminal each line of stdin is answered."""
    options = [f"--max-new-tokens={max_new_tokens}", f"--temperature={temperature}"]
    start_module("titan.chat", *options, *([] if system is None else [f"--system={system}"]), "--", *models)


@app.command()
@reports_errors
def patches(as_json: JsonOption = False) -> None:
    """List what is changed in torchtitan from outside, and why."""
    from titan.patches import all_patches

    listed = [
        {"name": patch.name, "target": patch.target, "what": patch.what, "why": patch.why, "versions": patch.versions}
        for patch in all_patches()
    ]
    if as_json:
        print_json(listed)
        return
    for patch in listed:
        out.print(Text.assemble((patch["name"], "bold"), f"  {patch['target']}  torchtitan {patch['versions']}"))
        out.print(Text(f"  what: {patch['what']}\n  why:  {patch['why']}\n"))


def start_module(module: str, *arguments: str) -> None:
    """Runs a module that needs torch, and ends with its exit status."""
    environ = {**os.environ, STREAMS: stream_encoding()}
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], env=environ)
    while True:
        try:
            raise typer.Exit(process.wait())
        except KeyboardInterrupt:
            continue  # the terminal has told the module, too, and it knows what to stop


def _settings(settings: list[str] | None, on_stale: str | None) -> list[str]:
    """What ``--set`` and ``--on-stale`` set."""
    return [*(settings or []), *([] if on_stale is None else [f"on_stale={on_stale}"])]


def _print_plan(planned: Any, console: Console) -> None:
    from titanflow.plan_view import plan_table

    console.print(plan_table(planned))


def _print_commands(planned: Any) -> None:
    from titanflow.errors import ConfigError
    from titanflow.launch_checks import torchrun_problems
    from titanflow.plan_view import command_lines

    for line in command_lines(planned):
        out.print(Text(line))
    if problems := torchrun_problems(planned.stages):
        raise ConfigError(problems)


def _print_forecast(console: Console, planned: Any) -> None:
    from titanflow.forecast.table import forecast_table

    console.print(forecast_table(planned.stages))


def _print_results(planned: Any, as_json: bool) -> None:
    from titanflow.stage import RESULT_FILE
    from titanflow.summary import render_summary

    if as_json:
        files = [stage.run.folder / RESULT_FILE for stage in planned.stages]
        print_json({path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in files if path.exists()})
    else:
        out.print(render_summary(planned))


def print_json(value: Any) -> None:
    """Writes a value to stdout, for other programs."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def _warn(loaded: Any) -> None:
    for line in loaded.ignored:
        err.print(Text.assemble(("ignored: ", "yellow"), line))
    for line in loaded.warnings:
        err.print(Text.assemble(("warning: ", "yellow"), line))


# Commands in files of their own register on this module's app, which `python -m` would have twice.
from titanflow import cli, nights_command, prove_resume_command, stage_commands  # noqa: E402, F401

if __name__ == "__main__":
    cli.main()
