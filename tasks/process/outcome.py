"""The outcome of a stage's process: its typed result, or an error that says what happened and what to do."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
from pathlib import Path
from typing import Any

from tasks.process.failed_ranks import MEMORY, is_disconnected, lost_peer, rank_exits, seconds_waited
from titanflow.common import errors
from titanflow.common.errors import ConfigError, DataError, StageFailed, StageLost, StageStopped, TitanflowError
from titanflow.runs.checkpoints import newest_step, saved_so_far
from titanflow.runs.contract import INTERRUPTED_EXIT, RESULT_FILE, TRAINED, StageKind, StageRun
from titanflow.runs.errors import ERROR_FILE, StageError, signal_name
from titanflow.runs.results import StageResult, read_result

TAIL_LINES = 20
"""How many lines of the log an error shows if the stage left no error of its own."""
TAIL_BYTES = 64 * 1024
FULL_BYTES = 1 << 20
"""A disk with less free space has no room for a stage's error.json."""
LESS_MEMORY: dict[StageKind | None, str] = {
    "pretrain": "lower training.local_batch_size or training.seq_len",
    "sft": "lower training.local_batch_size or training.seq_len",
    "prefer": "lower training.local_batch_size or training.seq_len",
    "evaluate": "lower batch_size",
    "publish": "free some: publishing loads the model once more, to check what it says",
}
"""How a stage can need less memory."""
SLURM_MEMORY = re.compile(r"exceeded memory limit|Exceeded job memory limit|oom[-_ ]kill event", re.IGNORECASE)
"""What slurmstepd and srun write of a step that took more memory than its job asked for: the job's state needn't say
so, since its script outlives the step."""
SRUN_KILLED = re.compile(r"srun: error: (\S+): tasks? [\d,-]+: Killed")
"""srun's line on a node whose torchrun was killed, and its ranks with it."""
FREE_MEMORY = "free some, or take a machine with more"
LOST_SIGNALS = (signal.SIGKILL, signal.SIGBUS)
"""Signals from outside: someone killed it, or a file system or another machine took its memory away."""
STOPPED = (INTERRUPTED_EXIT, -signal.SIGTERM)
TORCHRUN_SIGNALLED = re.compile(r"got signal: (\d+)")


def read_outcome(
    stage: str, folder: Path, returncode: int, log: Path, log_start: int = 0, memory_ran_out: bool = False
) -> StageResult:
    """Reads what a stage left in its ``folder``, and its log from byte ``log_start`` on."""
    if returncode == 0 and (folder / RESULT_FILE).exists():
        return read_result(folder)
    tail = log_tail(log, log_start)
    text = "\n".join(tail)
    status = _status(returncode, text)
    # While the stage ran, the kernel killed some process for lack of memory: was it one of the stage?
    by_slurm = SLURM_MEMORY.search(text)
    if (memory_ran_out or by_slurm) and (status == -signal.SIGKILL or -signal.SIGKILL in rank_exits(text).values()):
        by, what_helps = "Slurm" if by_slurm else "the kernel", _less_of_a_job(folder, bool(by_slurm))
        told = f"{stage} was killed by {by}, out of memory{resumes(folder)}: {what_helps}."
        raise StageFailed(told + _shown(tail, log))
    if error := StageError.of(folder):
        raise _own_error(stage, error, folder, log, text)
    if returncode == 0:
        raise StageFailed(f"{stage} ended without an error and without {RESULT_FILE}.{_shown(tail, log)}")
    if status in STOPPED:
        raise StageStopped(f"{stage} stopped on SIGTERM{resumes(folder)}. Its log: {log}")
    if status == -signal.SIGABRT and (waited := seconds_waited(text)):
        raise StageLost(f"{stage}: a rank did not answer for {waited:g} s{resumes(folder)}.{_shown(tail, log)}")
    if status < 0:
        kind = StageLost if -status in LOST_SIGNALS else StageFailed
        raise kind(_killed(stage, -status, folder, SRUN_KILLED.search(text)) + _shown(tail, log))
    full = " The disk is full." if shutil.disk_usage(folder).free < FULL_BYTES else ""
    raise StageFailed(f"{stage} ended with exit status {status} and wrote no {ERROR_FILE}.{full}{_shown(tail, log)}")


def log_tail(log: Path, start: int = 0) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()


def _own_error(stage: str, error: StageError, folder: Path, log: Path, text: str) -> TitanflowError:
    where = f"\n    its traceback: {folder / ERROR_FILE}\n    its log: {log}"
    kind = getattr(errors, error.type.rpartition(".")[2], None)
    if isinstance(kind, type) and issubclass(kind, TitanflowError) and kind is not TitanflowError:
        return kind(error.message)
    if error.exit_code == ConfigError.exit_code:
        return ConfigError(error.message)
    own = f"rank {error.rank}: {error.type}: {error.message}"
    if is_disconnected(error):
        peer, then = lost_peer(error, rank_exits(text)), resumes(folder)
        cause = f"{stage}: {peer}{then}; {own}" if peer else f"{stage} failed on {own}{then}"
        return StageLost(cause + where)
    hint = f"\n    {_less_memory(folder)}" if MEMORY.search(error.message) else ""
    return StageFailed(f"{stage} failed on {own}{hint}{where}")


def _status(returncode: int, text: str) -> int:
    # The root cause is the last of the ranks in torchrun's report; a cluster's nodes have one each, in any order, and
    # end the others with SIGTERM.
    if returncode == 1 and (exits := list(rank_exits(text).values())):
        return next((status for status in reversed(exits) if status not in STOPPED), exits[-1])
    if returncode == 1 and (signalled := TORCHRUN_SIGNALLED.search(text)):
        return -int(signalled[1])
    return returncode


def resumes(folder: Path) -> str:
    """The clause of a message that says from where a stage goes on."""
    if _kind(folder) == "publish":
        return "; run it again: what arrived isn't sent twice"
    saved = saved_so_far(folder)
    return f"; it resumes from {saved}" if saved else "; it saved nothing yet"


def _killed(stage: str, number: int, folder: Path, by_srun: re.Match[str] | None) -> str:
    where = f" on {by_srun[1]}" if by_srun else ""
    message = f"{stage} was killed by {signal_name(number)}{where}{resumes(folder)}."
    if number == signal.SIGKILL:
        message += f" If nobody killed it, the machine ran out of memory: {_less_memory(folder)}, or look into dmesg."
    return message


def stage_config(folder: Path) -> dict[str, Any]:
    """The config of a stage's ``run.yaml``; empty if it can't be read, which mustn't hide how the stage ended."""
    with contextlib.suppress(DataError):
        return run.config if (run := StageRun.of(folder)) else {}
    return {}


def _less_of_a_job(folder: Path, by_slurm: bool) -> str:
    """What helps a stage that was out of memory: to need less, or to ask the cluster for more of it.

    After a training's last step the model is exported. A smaller batch wouldn't help there.
    """
    config = stage_config(folder)
    launcher = config.get("launcher") or {"kind": "slurm" if by_slurm else "local"}
    more = {"slurm": "raise launcher.slurm.mem", "kubernetes": "raise launcher.kubernetes.resources.memory"}
    ask = more.get(launcher["kind"], "")
    # Slurm's 0 is all of a node's memory.
    if launcher["kind"] == "slurm" and str((launcher.get("slurm") or {}).get("mem")) == "0":
        ask = "take nodes with more memory"
    if config and _kind(folder) in TRAINED and (newest_step(folder) or 0) >= config["training"]["steps"]:
        return f"{ask or FREE_MEMORY}: the training is done, and the export holds the whole model in memory"
    return ", or ".join(part for part in (_less_memory(folder), ask) if part)


def _less_memory(folder: Path) -> str:
    return LESS_MEMORY.get(_kind(folder), FREE_MEMORY)


def _kind(folder: Path) -> StageKind | None:
    with contextlib.suppress(DataError):
        return run.kind if (run := StageRun.of(folder)) else None
    return None


def _shown(tail: list[str], log: Path) -> str:
    lines = "".join(f"\n    {line}" for line in tail[-TAIL_LINES:])
    return f" The end of {log}:{lines}"
