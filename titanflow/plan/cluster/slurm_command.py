"""Commands of Slurm, each with a deadline, and the one rule by which it is told that Slurm doesn't answer."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence

from titanflow.common.errors import ConfigError, NoAnswerError, Problem, StageFailed

ANSWER_SECONDS = 30.0
"""How long a command of Slurm may take: on a cluster that is down, some wait forever."""
SILENT = re.compile(
    "Unable to contact slurm|Unable to resolve|Socket timed out|Zero Bytes were transmitted|in standby mode"
    "|Problem talking to the database|Connection refused",
    re.IGNORECASE,
)
"""What commands print if the controller, or the accounting's database, is down, restarts, or is too busy. Tried with
22.05, and from ``slurm_errno.c`` of the same version."""


def ask(
    command: Sequence[str], seconds: float = ANSWER_SECONDS, env: Mapping[str, str] | None = None, given: str = ""
) -> str:
    """What a command prints; ``given`` is its input.

    Raises:
        ConfigError: there is no such command on this machine.
        NoAnswerError: Slurm doesn't answer.
        StageFailed: the command fails; the message is what it says.
    """
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, env=env)
    except FileNotFoundError as error:
        hint = "run the flow on a machine of the cluster from which jobs are submitted"
        raise ConfigError(Problem(f"there is no {command[0]}", "launcher.kind", expected="Slurm", hint=hint)) from error
    except subprocess.TimeoutExpired as error:
        raise NoAnswerError(f"{command[0]} gave no answer in {seconds:g} s") from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise (NoAnswerError if SILENT.search(said) else StageFailed)(f"{command[0]}: {said}")
    return done.stdout
