"""A stage's job as Slurm gets it: the command that submits it, and its script.

Facts: Slurm's manual pages of ``sbatch`` and ``srun`` (22.05).
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from titanflow.common.errors import NoAnswerError, StageFailed
from titanflow.planning.cluster.resources import NO_FOLDER, DryRun, Resources, pasted
from titanflow.planning.cluster.slurm_command import ask
from titanflow.runs.contract import RUN_FILE
from titanflow.runs.torchrun import JOB, MEETING_ID, MEETING_POINT

OPTIONS = ("partition", "account", "qos", "time", "gres", "constraint", "mem")
SCRIPT_FILE = "job.sh"
DRY_RUN_SECONDS = 10.0
NO_CLUSTER = "Could not establish a configuration source"
"""What Slurm's commands say where they are installed and nothing tells them of a cluster."""
SETUP_FAILED = 78
"""Exit status of a job whose lines of ``setup`` fail: EX_CONFIG of sysexits.h."""


def submission(resources: Resources) -> list[str]:
    """The command that submits a job's script."""
    asked = resources.settings
    # Values of the environment stand neither in the script nor on the command line: only names do.
    given = {
        "job-name": resources.name,
        "nodes": resources.nodes,
        "ntasks-per-node": 1,
        **({"cpus-per-task": resources.cores} if resources.cores else {}),
        "chdir": Path.cwd(),
        "output": _unexpanded(resources.log),
        "open-mode": "append",
        # A submission may be lost, and come back after the next one: only one of a stage's jobs runs at a time.
        "dependency": "singleton",
        "signal": f"TERM@{asked['save_seconds']}",
        "export": ",".join(sorted(resources.handed_on)) or "NONE",
        **({"gres": f"gpu:{resources.gpus}"} if resources.gpus else {}),
        # mem: 0 is all of a node's memory.
        **{key: asked[key] for key in OPTIONS if asked.get(key) is not None},
    }
    options = [f"--{key}={value}" for key, value in given.items()]
    return ["sbatch", "--parsable", "--no-requeue", *options, *asked["extra"]]


def script(command: Sequence[str], resources: Resources) -> str:
    """The job's batch script: one torchrun on each node, which meet on the first."""
    asked = resources.settings
    folder = shlex.quote(str(resources.folder))
    container = [f"--container-image={asked['container']}"] if asked.get("container") else []
    # A step's own environment is the job's: sbatch's --export would be handed on to srun.
    srun = ["srun", "--export=ALL", "--kill-on-bad-exit=1", *container, *command]
    threads = f"$((${{SLURM_CPUS_ON_NODE:-1}} / {resources.processes}))"
    lines = [
        "#!/bin/bash",
        f'[ -e {folder}/{RUN_FILE} ] || {{ echo "$(hostname) has no" {folder} >&2; exit {NO_FOLDER}; }}',
        *(f"export {name}={shlex.quote(value)}" for name, value in sorted(resources.variables.items())),
        *_setup(asked["setup"]),
        f'export {MEETING_POINT}="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
        ':$((20000 + SLURM_JOB_ID % 20000))"',
        f'export {MEETING_ID}="$SLURM_JOB_ID" {JOB}="$SLURM_JOB_ID"',
        f': "${{OMP_NUM_THREADS:={threads}}}"; export OMP_NUM_THREADS',
        '[ "$OMP_NUM_THREADS" -gt 0 ] || OMP_NUM_THREADS=1',
        "# Since Slurm 22.05 a step no longer has the cores of its job by itself.",
        '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
        "# The stage is told to save by a signal of its own; this shell lives on to note how it ended.",
        "trap : TERM",
        shlex.join(srun),
        "status=$?",
        f'echo "$status" > {folder}/job-"$SLURM_JOB_ID".status',
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"


def _setup(lines: Sequence[str]) -> list[str]:
    """The user's lines, of which each must succeed; what fails in a file that they source is that file's business."""
    if not lines:
        return []
    told = "echo \"launcher.slurm.setup: '$BASH_COMMAND' failed on $(hostname)\" >&2"
    return [
        "trap '[ ${#BASH_SOURCE[@]} -gt 1 ] || { " + told.replace("'", "'\\''") + f"; exit {SETUP_FAILED}; }}' ERR",
        *lines,
        "trap - ERR",
    ]


def _unexpanded(path: Path) -> str:
    """A file's name as Slurm takes it: a backslash anywhere in it switches its patterns, such as %j, off."""
    return re.sub(r"[\\%]", r"\\\g<0>", str(path))


def submitted(command: Sequence[str], resources: Resources) -> str:
    """The command that submits a job, with the job's script as its input."""
    return pasted(shlex.join(submission(resources)), script(command, resources))


def dry_run(command: Sequence[str], resources: Resources) -> DryRun:
    """Why Slurm wouldn't take a job, by its own dry run."""
    if shutil.which("sbatch") is None:
        return DryRun(unasked="there is no sbatch on this machine")
    try:
        ask([*submission(resources), "--test-only"], DRY_RUN_SECONDS, given=script(command, resources))
    except NoAnswerError as error:
        return DryRun(warnings=[f"Slurm couldn't be asked: {error}"])
    except StageFailed as error:
        if NO_CLUSTER in str(error):
            return DryRun(unasked="the sbatch of this machine knows no cluster (it finds no slurm.conf)")
        return DryRun(refused=["; ".join(str(error).removeprefix("sbatch: ").splitlines())])
    lacking = [name for name in resources.settings["export"] if name not in resources.handed_on]
    return DryRun(warnings=[f"slurm.export: {name} isn't set in this environment" for name in lacking])
