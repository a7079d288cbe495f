"""Jobs of Slurm, through its own commands: ``sbatch``, ``scontrol``, ``squeue``, ``sacct``, ``scancel``.

Facts: Slurm's manual pages of these commands (22.05). A job is never requeued by Slurm (``--no-requeue``): the flow
submits a new one, which has an id of its own, so that a signal meant for the old one can't end it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tasks.jobs.job import Job, JobState, noted_status
from titanflow.common.errors import NoAnswerError, StageFailed
from titanflow.common.files import write_text_atomically
from titanflow.config.checks.processes.slurm import limit_seconds
from titanflow.planning.cluster.resources import NO_FOLDER, Resources
from titanflow.planning.cluster.slurm_command import ask
from titanflow.planning.cluster.slurm_script import SCRIPT_FILE, script, submission

WAITING = (
    *("PENDING", "CONFIGURING", "POWER_UP_NODE", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"),
    "SPECIAL_EXIT",
)
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT", "UPDATE_DB")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "OUT_OF_MEMORY")
"""Words for the end of a job, beside those of :data:`CUT_SHORT`."""
SIGNALLED = 128
GONE = re.compile(r"Invalid job id", re.IGNORECASE)
RECORD = re.compile(r"^(?=JobId=)", re.MULTILINE)
FIELD = re.compile(r"(?:^|\s)(JobName|JobState|Reason|ExitCode|StartTime|RunTime|TimeLimit)=(\S*)")
ID = re.compile(r"^\s*(?:Submitted batch job )?(\d+)(?:;\S*)?\s*$", re.MULTILINE)
"""An id in a line of its own, with the cluster's name if there is one; other lines are a site's own words."""
NOT_SHARED = (NO_FOLDER, -53)
"""Exit statuses of a job whose nodes lack the stage's folder; Slurm calls a log that can't be opened signal 53."""
SHOWN = 200
"""How many letters of an answer that nobody expects are shown."""
CUT_SHORT = {
    "TIMEOUT": "reached its time limit",
    "PREEMPTED": "was preempted by another job",
    "NODE_FAIL": "lost a node",
    "BOOT_FAIL": "lost a node that didn't start",
    "REVOKED": "was taken back by the scheduler",
    "DEADLINE": "can't end by its deadline any more",
    "LAUNCH_FAILED": "couldn't be launched on its nodes",
    "RECONFIG_FAIL": "couldn't have its nodes set up",
}
"""How Slurm ends a job through no fault of the stage."""
MORE_TIME = "raise launcher.slurm.time (unset, it is the partition's limit), or lower launcher.slurm.save_seconds"
REMEDIES = {"TIMEOUT": MORE_TIME, "DEADLINE": MORE_TIME}
"""What helps a stage whose jobs all end in this way before anything is saved."""


def name(resources: Resources) -> str:
    """What a stage's job is found by, from before its submission."""
    return resources.name


def by_hand(resources: Resources) -> list[str]:
    """The command that submits a job's script once more."""
    return [*submission(resources), str(resources.folder / SCRIPT_FILE)]


def submit(command: Sequence[str], resources: Resources) -> str:
    """Submits a stage's job and returns its id.

    Raises:
        StageFailed: Slurm refuses the job, or says no id.
    """
    path = resources.folder / SCRIPT_FILE
    write_text_atomically(path, script(command, resources))
    answer = ask(by_hand(resources), more=resources.handed_on)
    if found := ID.findall(answer):
        return str(found[-1])
    raise StageFailed(f"sbatch: found no job id in its answer: {answer.strip()!r}")


def state(job: Job, folder: Path) -> JobState:
    """What is known of a job now.

    Raises:
        NoAnswerError: Slurm doesn't answer, or nothing that tells.
    """
    try:
        answer = ask(["scontrol", "show", "job", "--oneliner", job.id])
    except NoAnswerError:
        raise
    except StageFailed as error:
        if not GONE.search(str(error)):
            raise NoAnswerError(str(error)) from error
        return _forgotten(job, folder)
    # The first of a name counts: what follows are paths, and words of the user.
    records = [dict(reversed(FIELD.findall(record))) for record in RECORD.split(answer)]
    told = [record for record in records if record.get("JobState")]
    if not told:
        raise NoAnswerError(f"scontrol: found no state of job {job.id} in its answer: {answer.strip()[:SHOWN]!r}")
    # A controller that was set up anew gives its ids away again.
    own = [record for record in told if record.get("JobName") == job.name]
    if not own:
        return _forgotten(job, folder)
    # Clusters of a federation each tell of the job: the others that it was taken back there.
    fields = next((record for record in own if record["JobState"] != "REVOKED"), own[0])
    word, reason = fields["JobState"], fields.get("Reason", "")
    if word in WAITING:
        begins = fields.get("StartTime", "")
        # Slurm says None, too, of a job that it hasn't looked at yet.
        why = "" if reason == "None" else reason
        return JobState("waiting", why, begins="" if begins == "Unknown" else begins)
    if word in RUNNING:
        return JobState("running")
    if word not in (*ENDED, *CUT_SHORT):
        # A job that is taken for ended would be submitted once more.
        raise NoAnswerError(f"scontrol: job {job.id} is {word}, a state that is unknown here")
    ran, limit = (limit_seconds(fields.get(name, "")) for name in ("RunTime", "TimeLimit"))
    return JobState("ended", word, status=_status(fields.get("ExitCode", "")), ran=ran, limit=limit)


def find(name: str) -> str:
    """The id of the living job of that name, the newest of several; empty if there is none."""
    found = ID.findall(ask(["squeue", "--noheader", "--me", f"--name={name}", "--format=%A"]))
    return max(found, key=int, default="")


def cancel(job: Job, now: bool = False) -> None:
    """Ends a job; unless it must end ``now``, a running one is only told to save."""
    gently = [] if now else ["--signal=TERM"]
    # By the name, too: the id may be another job's by now.
    ask(["scancel", *gently, f"--name={job.name}", job.id])


def _forgotten(job: Job, folder: Path) -> JobState:
    """A job that ended so long ago that the controller forgot it: by the accounting, or by what its script wrote.

    Raises:
        NoAnswerError: the accounting doesn't answer, and the script wrote nothing.
    """
    written = _status(f"{noted_status(job.id, folder)}:0")
    try:
        word, status = _accounted(job)
    except NoAnswerError:
        if written is None:
            raise
        word, status = "", None
    if word:
        return JobState("ended", word, status=status)
    return JobState("ended", "COMPLETED" if written == 0 else "FORGOTTEN", status=written)


def _accounted(job: Job) -> tuple[str, int | None]:
    """How a job ended by the accounting, and its exit status; an empty word if there is none that tells.

    Of a requeued job ``sacct`` tells the last. A job that the accounting takes for
    living, and the controller doesn't know, was lost with the controller's memory of it.
    """
    options = ["--noheader", "--parsable2", "--allocations", f"--jobs={job.id}", "--format=JobName,State,ExitCode"]
    try:
        lines = ask(["sacct", *options]).split("\n") if shutil.which("sacct") else []
    except NoAnswerError:
        raise
    except StageFailed:
        # Most often there is no accounting.
        return "", None
    told = [line.split("|")[1:] for line in lines if line.startswith(f"{job.name}|")]
    if not told:
        return "", None
    state, status = told[-1]
    # "CANCELLED by 0" names the user.
    word = state.partition(" ")[0]
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
