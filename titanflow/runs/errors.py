"""What a stage's process tells: lines and warnings in its log, and how it fails, by ``error.json`` and exit status."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from pathlib import Path

from titanflow.common.credentials import redact
from titanflow.common.errors import DataError, TitanflowError
from titanflow.common.files import hidden_sibling
from titanflow.files.own_files import read_mapping, readable
from titanflow.runs.contract import Strict
from titanflow.runs.torchrun import attempt

ERROR_FILE = "error.json"
WARNING = "WARNING"


def log_to_stderr() -> None:
    """Has this process's logging write lines as ``09:41:07 WARNING sft kind: 2 of 8 prompts cut``."""
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=form, datefmt="%H:%M:%S", force=True)


def warn(text: str) -> None:
    """Writes a warning into the log of a process without logging."""
    print(f"{WARNING} {text}", file=sys.stderr, flush=True)


class StageError(Strict):
    """``error.json``: the first rank that failed, and its own exception; ``attempt`` names the start of its ranks."""

    rank: int = 0
    type: str
    message: str
    traceback: str = ""
    exit_code: int = 1
    attempt: str = ""

    @classmethod
    def of(cls, folder: Path) -> StageError | None:
        """The error that a stage's folder holds; None if there is none that can be read."""
        try:
            return cls.read(folder)
        except DataError:
            return None

    @classmethod
    def read(cls, folder: Path) -> StageError:
        """The error that a stage's folder holds.

        Raises:
            DataError: it can't be read, or another version wrote it.
        """
        path = folder / ERROR_FILE
        stored = read_mapping(path)
        with readable(path):
            return cls.model_validate(stored)


def record_failure(folder: Path, error: BaseException, rank: int = 0) -> int:
    """Logs the error, writes ``error.json`` unless another rank failed first, and returns the exit status."""
    # Credentials are cut. Unusable input is told by its message, a fault by its traceback.
    message, trace = redact(str(error) or repr(error)), redact("".join(traceback.format_exception(error)))
    status, told = (error.exit_code, message) if isinstance(error, TitanflowError) else (1, trace)
    print(told, file=sys.stderr, flush=True)
    name = type(error).__name__
    failure = StageError(rank=rank, type=name, message=message, traceback=trace, exit_code=status, attempt=attempt())
    try:
        write_error(folder, failure)
    except OSError as unwritable:
        # A disk may be so full that not even this fits; the log has it.
        print(f"{ERROR_FILE} could not be written: {unwritable}", file=sys.stderr, flush=True)
    return status


def write_error(folder: Path, error: StageError) -> None:
    """Writes ``error.json`` unless another rank already did: the first failure counts."""
    path = Path(folder) / ERROR_FILE
    temporary = hidden_sibling(path)
    temporary.write_text(error.model_dump_json(indent=2) + "\n", encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def signal_name(number: int) -> str:
    """The name of the signal that ended a process, for messages."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ending(status: int) -> str:
    """What became of a process that failed, for messages; ``status`` is negative for a signal."""
    return f"was killed by {signal_name(-status)}" if status < 0 else f"ended with status {status}"
