"""What a stage's process leaves when it fails: ``error.json``, its words in the log, and its exit status."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from titanflow.errors import TitanflowError
from titanflow.hub.endpoint import redact
from titanflow.stage import ERROR_FILE, StageError, write_error


def record_failure(folder: Path, error: BaseException, rank: int = 0) -> int:
    """Tells the log and writes ``error.json``, unless another rank failed first; returns the exit status.

    Credentials are cut from every text. Input that can't be used is told by its message, a fault by its traceback.
    """
    message, trace = redact(str(error) or repr(error)), redact("".join(traceback.format_exception(error)))
    status, told = (error.exit_code, message) if isinstance(error, TitanflowError) else (1, trace)
    print(told, file=sys.stderr, flush=True)
    failure = StageError(rank=rank, type=type(error).__name__, message=message, traceback=trace, exit_code=status)
    try:
        write_error(folder, failure)
    except OSError as unwritable:
        # A disk may be so full that not even this fits; the log has it.
        print(f"{ERROR_FILE} could not be written: {unwritable}", file=sys.stderr, flush=True)
    return status
