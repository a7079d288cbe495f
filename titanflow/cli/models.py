"""``titanflow export``, ``verify``, ``chat`` and ``patches``: the commands that load models with torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from titanflow.cli.app import JsonOption, out, print_json
from titanflow.common.utf8_mode import STREAMS, stream_encoding


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A stage's folder, or a checkpoint in it.", metavar="CKPT")],
    folder: Annotated[Path, typer.Argument(help="The folder to write.", metavar="OUT")],
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write only the adapter of a LoRA stage, for PEFT.")
    ] = False,
) -> None:
    """Write a checkpoint as a folder that transformers loads."""
    start_module("titan.export.peft_adapter" if adapter else "titan.export.export", str(checkpoint), str(folder))


def verify(
    published: Annotated[str, typer.Argument(help="A folder, or owner/name on the Hub.", metavar="FOLDER_OR_REPO")],
    revision: Annotated[
        str | None, typer.Option("--revision", help="A branch, tag or commit; by default main.", metavar="REVISION")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="The public key (PEM) of whoever should have signed it.", metavar="FILE")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a published model: its hashes and signature, that it loads, and answers as when it was evaluated."""
    options = [*([] if revision is None else [f"--revision={revision}"]), *([] if key is None else [f"--key={key}"])]
    start_module("titan.inference.verify", *options, *(["--json"] if as_json else []), "--", published)


def chat(
    models: Annotated[
        list[str], typer.Argument(help="Folders, stages, owner/name or owner/name@revision.", metavar="MODEL…")
    ],
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="The most tokens that an answer may have.")
    ] = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, help="0 always takes the likeliest token.")
    ] = 0.0,
    system: Annotated[
        str | None, typer.Option("--system", help="The system's message, before the first question.", metavar="TEXT")
    ] = None,
) -> None:
    """Talk with a model, or with several side by side; /help lists what can be typed in place of a question.

    Without a terminal each line of stdin is answered as soon as it is there.
    """
    options = [f"--max-new-tokens={max_new_tokens}", f"--temperature={temperature}"]
    start_module("titan.inference.chat", *options, *([] if system is None else [f"--system={system}"]), "--", *models)


def patches(as_json: JsonOption = False) -> None:
    """List the patches of torchtitan, with the reason for each."""
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
    """Runs a module that needs torch in a process of its own, and exits with its status."""
    environ = {**os.environ, STREAMS: stream_encoding()}
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], env=environ)
    while True:
        try:
            raise typer.Exit(process.wait())
        except KeyboardInterrupt:
            continue  # the terminal has interrupted the module, too, which ends by itself
