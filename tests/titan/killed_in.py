"""A preference stage that SIGKILL ends at one place: ``python killed_in.py run.yaml``, :data:`PLACE` says where.

``reference`` is between the reference's numbers and the file that makes them complete, ``step 3`` within that step, and
``save 3`` between a checkpoint's tensors and its metadata.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from titan.train.prefer.trainer import PreferenceTrainer
from titan.train.train import main

PLACE = "KILLED_IN"


def fatal(named: Callable[[Any], str], function: Callable[..., Any], after: bool = True) -> Callable[..., Any]:
    """The function; a call whose first argument is at the place ends the process, before or ``after`` it."""

    def call(first: Any, *others: Any, **more: Any) -> Any:
        is_here = named(first) == os.environ[PLACE]
        result = function(first, *others, **more) if after or not is_here else None
        if is_here:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


if __name__ == "__main__":
    np.save = fatal(lambda file: "reference", np.save)
    train = PreferenceTrainer.forward_backward_step
    PreferenceTrainer.forward_backward_step = fatal(lambda trainer: f"step {trainer.step}", train)  # type: ignore[method-assign]
    finish = FileSystemWriter.finish
    FileSystemWriter.finish = fatal(  # type: ignore[method-assign]
        lambda writer: Path(writer.path).name.replace("step-", "save "), finish, after=False
    )
    main(sys.argv[1:])
