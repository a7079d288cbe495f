"""Commands of Slurm, each with a deadline, and the one rule by which it is told that Slurm doesn't answer."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence

from titanflow.common.errors import ConfigError, NoAnswerError, Problem, StageFailed

ANSWER_SECONDS = 30.0
"""How long a command of Slurm may take: on a cluster that is down, some wait forever."""
SILENT = re.compile(
    "Unable to contact slurm|Unable to resolve|Socket timed out|Zero Bytes were transmitted|in standby mode"
    "|Problem talking to the database|Connection refused|Message (?:send|receive) failure|Unexpected message received"
    "|Communication (?:connection|shutdown) failure|Protocol authentication error|temporarily un(?:able|available)",
    re.IGNORECASE,
)
"""What commands print if the controller, or the accounting's database, is down, restarts, or is too busy. Tried with
22.05, and from ``slurm_errno.c`` of the same version."""
READ = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS", "SLURM_UMASK", "SBATCH_")
"""Slurm's own environment variables, or beginnings of such, that its commands are given. Any other may be of the job in
which the flow itself runs, and would be handed on to the stage's job (``SLURM_MEM_PER_CPU``); or it hides jobs
(``SQUEUE_PARTITION``, ``SQUEUE_STATES``)."""
UNREAD = ("SBATCH_ARRAY_INX", "SBATCH_WAIT", "SBATCH_CLUSTERS", "SBATCH_ERROR")
"""Defaults of ``sbatch`` that no option takes back, and with which a stage has no single job, here, with one log."""
OF_SLURM = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_")


def ask(
    command: Sequence[str], seconds: float = ANSWER_SECONDS, more: Mapping[str, str] | None = None, given: str = ""
) -> str:
    """What a command prints; ``more`` is added to its environment, ``given`` is its input.

    Raises:
        ConfigError: there is no such command on this machine.
        NoAnswerError: Slurm doesn't answer.
        StageFailed: the command fails; the message is what it says.
    """
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            encoding="utf-8",
            # A cluster's greeting, or a job's folder, may be of any bytes.
            errors="replace",
            timeout=seconds,
            env={**_environment(), **(more or {})},
            # A terminal's ^C goes to all of its processes: `sbatch` would end, and leave a job of which nobody knows.
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError) as error:
        hint = "run the flow on a machine of the cluster from which jobs are submitted"
        raise ConfigError(Problem(f"there is no {command[0]}", "launcher.kind", expected="Slurm", hint=hint)) from error
    except subprocess.TimeoutExpired as error:
        raise NoAnswerError(f"{command[0]} gave no answer in {seconds:g} s") from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise (NoAnswerError if SILENT.search(said) else StageFailed)(f"{command[0]}: {said}")
    return done.stdout


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OF_SLURM) or (name.startswith(READ) and name not in UNREAD)
    }
