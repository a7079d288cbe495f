"""``titanflow prove-resume``: kill a run at random moments, and compare it with one that was left in peace."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from titanflow.cli.app import ConfigsOption, ExperimentArgument, JsonOption, RunOption, SetOption, err, out, print_json
from titanflow.cli.completion import stage_names
from titanflow.common.console import uncut

if TYPE_CHECKING:
    from flows.server.prefect_settings import check_prefect_settings

    check_prefect_settings()
    from flows.resume_proof.prove_resume import Proof

DIFFERS = 1


def prove_resume(
    experiment: ExperimentArgument = "stdlib",
    configs: ConfigsOption = None,
    run_name: RunOption = None,
    settings: SetOption = None,
    kills: Annotated[int, typer.Option("--kills", min=0, help="How often the run is killed.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The seed of the random moments.")] = 0,
    stages: Annotated[
        list[str] | None,
        typer.Option(
            "--stage",
            help="Kill in this stage only; may be given several times.",
            metavar="STAGE",
            autocompletion=stage_names,
        ),
    ] = None,
    fewer_steps: Annotated[
        list[str] | None,
        typer.Option(
            "--fewer-steps",
            help="The killed run has so many steps of a training first, and is extended; may be given several times.",
            metavar="STAGE=STEPS",
        ),
    ] = None,
    ranks: Annotated[int | None, typer.Option("--ranks", min=1, help="Processes of every stage.")] = None,
    resume_ranks: Annotated[
        int | None, typer.Option("--resume-ranks", min=1, help="Processes of every second start of the killed run.")
    ] = None,
    workspace: Annotated[
        Path | None,
        typer.Option(
            "--workspace",
            help="A folder in which both runs are kept; by default, equal runs are removed.",
            metavar="DIR",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that a killed run ends as an uninterrupted one does: kill a run at random, and compare the two."""
    from flows.server.prefect_settings import check_prefect_settings

    check_prefect_settings()
    from flows.resume_proof.prove_resume import Experiment, Ranks, prove

    folder = Path(tempfile.mkdtemp(prefix="titanflow-proof-")) if workspace is None else workspace.resolve()
    is_kept = workspace is not None
    try:
        proof = prove(
            Experiment(experiment, folder, configs, run_name, settings or [], fewer_steps or []),
            kills,
            seed,
            stages or (),
            Ranks(ranks, resume_ranks),
            say=lambda line: err.print(Text(line, style="dim")),
        )
        if as_json:
            print_json(proof.as_json())
        else:
            out.print(render(proof))
        is_kept = is_kept or not proof.holds
    finally:
        if not is_kept:
            shutil.rmtree(folder, ignore_errors=True)
    if not proof.holds:
        err.print(f"both runs are kept in {folder}")
        raise typer.Exit(DIFFERS)


def render(proof: Proof) -> Group:
    headers = ("kill", "stage", "moment", "killed", "step", "resumed from", "redone", "lost")
    kills = Table(*headers, box=None, pad_edge=False)
    for kill in proof.kills:
        trains = kill.resumed_from is not None
        kills.add_row(
            str(kill.number),
            kill.stage,
            kill.moment,
            kill.killed,
            *(str(value) if trains else "" for value in (kill.step, kill.resumed_from, kill.redone)),
            "" if kill.back is None else f"{kill.back:.1f} s",
        )
    checks = Table(box=None, pad_edge=False, show_header=False)
    for check in proof.checks:
        result = Text("equal", style="green") if check.passed else Text("DIFFERS", style="bold red")
        checks.add_row(check.name, result, check.found)
    calm, killed = proof.seconds
    met = f"{len(proof.kills)} kills" + (f" ({proof.unmet} more came when the run had finished)" if proof.unmet else "")
    verdict = "The killed run equals the uninterrupted one." if proof.holds else "The killed run differs."
    last = f"{verdict} {met}, {proof.starts} starts, {killed:.0f} s in place of {calm:.0f} s."
    return Group(uncut(kills), "", uncut(checks), "", last)
