"""What a stage's process came to: its typed result, or an error that says what happened and what to do."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from tasks.process import signal_name
from titanflow import errors
from titanflow.checkpoints import newest_step
from titanflow.errors import ConfigError, StageFailed, TitanflowError
from titanflow.stage import (
    ERROR_FILE,
    INTERRUPTED_EXIT,
    RESULT_FILE,
    StageError,
    StageResult,
    read_result,
)

TAIL_LINES = 20
"""How much of the log an error shows when the stage itself said nothing."""
TAIL_BYTES = 64 * 1024

# torchrun ends with 1 whatever became of its ranks; what became of them stands in its report.
RANK_EXIT = re.compile(r"exitcode\s*:\s*(-?\d+)")
TORCHRUN_SIGNALLED = re.compile(r"got signal: (\d+)")


def read_outcome(stage: str, folder: Path, returncode: int, log: Path, log_start: int = 0) -> StageResult:
    """Reads what a stage left behind in its ``folder``; of its log, what follows byte ``log_start``.

    Raises:
        ConfigError: the stage found its input unusable (``error.json`` with exit code 2).
        StageFailed: it failed, was stopped or was killed; the message is the failing rank's own where there is one.
    """
    if returncode == 0 and (folder / RESULT_FILE).exists():
        return read_result(folder)
    if (folder / ERROR_FILE).exists():
        raise _own_error(stage, folder, log)
    tail = log_tail(log, log_start)
    if returncode == 0:
        raise StageFailed(f"{stage} ended without an error and without {RESULT_FILE}.{_shown(tail, log)}")
    status = _status(returncode, tail)
    if status in (INTERRUPTED_EXIT, -signal.SIGTERM):
        raise StageFailed(f"{stage} stopped on SIGTERM{_resumes(folder)}. Its log: {log}")
    if status < 0:
        raise StageFailed(_killed(stage, -status, folder) + _shown(tail, log))
    raise StageFailed(f"{stage} ended with exit status {status} and wrote no {ERROR_FILE}.{_shown(tail, log)}")


def log_tail(log: Path, start: int = 0) -> list[str]:
    """The last lines of a log file, from byte ``start`` on at the earliest."""
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()


def _own_error(stage: str, folder: Path, log: Path) -> TitanflowError:
    error = StageError.model_validate_json((folder / ERROR_FILE).read_text())
    kind = getattr(errors, error.type.rpartition(".")[2], None)
    if isinstance(kind, type) and issubclass(kind, TitanflowError) and kind is not TitanflowError:
        return kind(error.message)
    if error.exit_code == ConfigError.exit_code:
        return ConfigError(error.message)
    return StageFailed(
        f"{stage} failed on rank {error.rank}: {error.type}: {error.message}\n"
        f"    its traceback: {folder / ERROR_FILE}\n    its log: {log}"
    )


def _status(returncode: int, tail: list[str]) -> int:
    text = "\n".join(tail)
    # The root cause is the last of the ranks in torchrun's report.
    if returncode == 1 and (ranks := RANK_EXIT.findall(text)):
        return int(ranks[-1])
    if returncode == 1 and (signalled := TORCHRUN_SIGNALLED.search(text)):
        return -int(signalled[1])
    return returncode


def _resumes(folder: Path) -> str:
    step = newest_step(folder)
    return "; it saved nothing yet" if step is None else f"; it resumes from step {step}"


def _killed(stage: str, number: int, folder: Path) -> str:
    message = f"{stage} was killed by {signal_name(number)}{_resumes(folder)}."
    if number == signal.SIGKILL:
        message += (
            " If nobody killed it, the machine ran out of memory: lower training.local_batch_size or"
            " training.seq_len, or look into the kernel's log (dmesg)."
        )
    return message


def _shown(tail: list[str], log: Path) -> str:
    lines = "".join(f"\n    {line}" for line in tail[-TAIL_LINES:])
    return f" The end of {log}:{lines}"
