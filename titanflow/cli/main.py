"""``titanflow``: init, run, plan, config, masks, report, export, verify, chat, prove-resume, prove-losses, benchmark,
nights and patches.

Exit status 0 on success, 2 on bad input, 1 on a failed run. Results go to stdout (as JSON with ``--json``), everything
else to stderr. Only the commands that need Prefect or torch import them.
"""

from __future__ import annotations

import io
import os
import sys

import typer

from titanflow.cli.app import reports_errors
from titanflow.cli.init import ManyFiles, init
from titanflow.cli.models import chat, export, patches, verify
from titanflow.cli.nights import nights
from titanflow.cli.prove_resume import prove_resume
from titanflow.cli.run import plan, run
from titanflow.cli.show import config, masks, report
from titanflow.cli.stage_commands import benchmark, prove_losses
from titanflow.common.utf8_mode import STREAMS, restart_in_utf8_mode

COMMANDS = (
    run, plan, config, masks, report, export, verify, chat, prove_resume, prove_losses, benchmark, nights, patches,
)  # fmt: skip
"""In the order of ``--help``, behind ``init``."""

app = typer.Typer(
    help="From raw text to a published model: pretrain, fine-tune, evaluate, publish.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(cls=ManyFiles)(reports_errors(init))
for command in COMMANDS:
    app.command()(reports_errors(command))


def main() -> None:
    restart_in_utf8_mode()
    # What is started imports nothing from the current folder.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    # Logs are UTF-8 whatever the terminal's encoding, so what is started doesn't inherit it.
    os.environ.pop(STREAMS, None)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A character that the terminal's encoding lacks must not end a command.
            stream.reconfigure(errors="replace")
    app()


if __name__ == "__main__":
    main()
