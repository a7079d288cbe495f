"""Jobs of Slurm, through its own commands: ``sbatch``, ``scontrol``, ``squeue``, ``sacct``, ``scancel``.

Facts: Slurm's manual pages of these commands (22.05). A job is never requeued by Slurm (``--no-requeue``): the flow
submits a new one, which has an id of its own, so that a signal meant for the old one can't end it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tasks.jobs.job import JobState, noted_status
from titanflow.common.errors import NoAnswerError, StageFailed
from titanflow.common.files import write_text_atomically
from titanflow.plan.cluster.resources import NO_FOLDER, Resources
from titanflow.plan.cluster.slurm_command import ask
from titanflow.plan.cluster.slurm_script import SCRIPT_FILE, script, submission

WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")
SIGNALLED = 128
GONE = re.compile(r"Invalid job id", re.IGNORECASE)
FIELD = re.compile(r"(?:^|\s)(JobState|Reason|ExitCode|StartTime)=(\S*)")
NOT_SHARED = (NO_FOLDER, -53)
"""Exit statuses of a job whose nodes lack the stage's folder; Slurm calls a log that can't be opened signal 53."""
CUT_SHORT = {
    "TIMEOUT": "reached its time limit",
    "PREEMPTED": "was preempted by another job",
    "NODE_FAIL": "lost a node",
    "BOOT_FAIL": "lost a node that didn't start",
    "REVOKED": "was taken back by the scheduler",
    "DEADLINE": "can't end by its deadline any more",
}
"""How Slurm ends a job through no fault of the stage."""


def name(resources: Resources) -> str:
    """What a stage's job is found by, from before its submission."""
    return resources.name


def by_hand(resources: Resources) -> list[str]:
    """The command that submits a job's script once more."""
    return [*submission(resources), str(resources.folder / SCRIPT_FILE)]


def submit(command: Sequence[str], resources: Resources) -> str:
    """Submits a stage's job and returns its id."""
    path = resources.folder / SCRIPT_FILE
    write_text_atomically(path, script(command, resources))
    answer = ask(by_hand(resources), env={**os.environ, **resources.handed_on})
    return answer.strip().split(";")[0]


def state(job: str, folder: Path) -> JobState:
    """What is known of a job now.

    Raises:
        NoAnswerError: Slurm doesn't answer.
    """
    try:
        fields = dict(FIELD.findall(ask(["scontrol", "show", "job", "--oneliner", job])))
    except StageFailed as error:
        if not GONE.search(str(error)):
            raise
        return _forgotten(job, folder)
    word, reason = fields.get("JobState", ""), fields.get("Reason", "")
    if word in WAITING:
        begins = fields.get("StartTime", "")
        # Slurm says None, too, of a job that it hasn't looked at yet.
        why = "" if reason == "None" else reason
        return JobState("waiting", why, begins="" if begins == "Unknown" else begins)
    if word in RUNNING:
        return JobState("running")
    return JobState("ended", word, status=_status(fields.get("ExitCode", "")))


def find(name: str) -> str:
    """The id of the living job of that name; empty if there is none."""
    found = ask(["squeue", "--noheader", "--me", f"--name={name}", "--format=%A"]).split()
    return found[-1] if found else ""


def cancel(job: str, now: bool = False) -> None:
    """Ends a job; unless it must end ``now``, a running one is only told to save."""
    gently = [] if now else ["--signal=TERM"]
    ask(["scancel", *gently, job])


def _forgotten(job: str, folder: Path) -> JobState:
    """A job that ended so long ago that the controller forgot it: by the accounting, or by what its script wrote.

    Raises:
        NoAnswerError: the accounting doesn't answer, and the script wrote nothing.
    """
    written = _status(f"{noted_status(job, folder)}:0")
    try:
        word, status = _accounted(job)
    except NoAnswerError:
        if written is None:
            raise
        word, status = "", None
    if word:
        return JobState("ended", word, status=status)
    return JobState("ended", "COMPLETED" if written == 0 else "FORGOTTEN", status=written)


def _accounted(job: str) -> tuple[str, int | None]:
    """How a job ended by the accounting, and its exit status; an empty word if there is none that tells.

    Of a requeued job, and of an id that is used again, ``sacct`` tells the last. A job that the accounting takes for
    living, and the controller doesn't know, was lost with the controller's memory of it.
    """
    options = ["--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State,ExitCode"]
    try:
        lines = ask(["sacct", *options]).split("\n") if shutil.which("sacct") else []
    except NoAnswerError:
        raise
    except StageFailed:
        # Most often there is no accounting.
        return "", None
    told = [line for line in lines if line.strip()]
    if not told:
        return "", None
    state, _, status = told[-1].partition("|")
    # "CANCELLED by 0" names the user.
    word = state.split()[0]
    return ("", None) if word in (*WAITING, *RUNNING) else (word, _status(status))


def _status(text: str) -> int | None:
    """The exit status of ``ExitCode=1:0``; negative for the signal that ended it."""
    code, _, signal = text.partition(":")
    if not code.isdigit():
        return None
    if signal.isdigit() and int(signal):
        return -int(signal)
    # srun, and the shell of the job's script, say by such a status which signal ended what they waited for.
    return SIGNALLED - int(code) if int(code) > SIGNALLED else int(code)
