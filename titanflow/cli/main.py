"""``titanflow``: init, run, plan, config, masks, report, export, verify, chat, prove-resume, prove-losses, benchmark,
nights, patches and serve.

Results go to stdout (as JSON with ``--json``), everything else to stderr. Only the commands that need Prefect or torch
import them.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from titanflow import __version__
from titanflow.cli.app import out, reports_errors
from titanflow.cli.completion import Completed
from titanflow.cli.init import ManyFiles, init
from titanflow.cli.models import chat, export, patches, verify
from titanflow.cli.nights import nights
from titanflow.cli.prove_resume import prove_resume
from titanflow.cli.run import plan, run
from titanflow.cli.serve import serve
from titanflow.cli.show import config, masks, report
from titanflow.cli.stage_commands import benchmark, prove_losses
from titanflow.common.utf8_mode import STREAMS, replace_what_no_terminal_shows, restart_in_utf8_mode

COMMANDS = (
    run, plan, config, masks, report, export, verify, chat, prove_resume, prove_losses, benchmark, nights, patches,
)  # fmt: skip
"""In the order of ``--help``, between ``init`` and ``serve``."""

STATUSES = (
    "Exit status: 0 success, 1 a run, a check or a proof failed, 2 bad input, 130 ended by ^C, 143 ended by SIGTERM, "
    "129 by SIGHUP."
)

app = typer.Typer(
    help="From raw text to a published model: pretrain, fine-tune, evaluate, publish.",
    epilog=STATUSES,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command(cls=ManyFiles)(reports_errors(init))
for command in COMMANDS:
    goes_on = "the next start of a run resumes from its newest checkpoint" if command is run else ""
    app.command(cls=Completed)(reports_errors(command, after_interrupt=goes_on))
# Its database and its logs have to last.
app.command(cls=Completed)(reports_errors(serve, lasting=("PREFECT_HOME",)))


def _show_version(asked: bool) -> None:
    if asked:
        out.print(f"titanflow {__version__}")
        raise typer.Exit


@app.callback()
def with_version(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The options before a command; without a docstring of its own the help would have this one."""


def main() -> None:
    """Runs the command that the arguments name, and exits with its status."""
    restart_in_utf8_mode()
    # What is started imports nothing from the current folder.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    # Logs are UTF-8 whatever the terminal's encoding, so what is started doesn't inherit it.
    os.environ.pop(STREAMS, None)
    replace_what_no_terminal_shows()
    app()


if __name__ == "__main__":
    main()
