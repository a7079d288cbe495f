"""Becomes a command that ends when its starter does: ``python -I -S bound.py PARENT_PID COMMAND…``.

This runs before the command, from a file of its own, because Python code between fork and exec (``preexec_fn``) may
deadlock in a process with threads, which every Prefect flow has. The bond is Linux's ``PR_SET_PDEATHSIG``. Signals that
a shell's ``&`` had set to ignored are handled again.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # If the parent died before the bond was made, no signal will come.
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
