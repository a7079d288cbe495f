import os
import sys

__version__ = "0.1.0"

if sys.platform != "linux":
    # Each program of this project imports this package first, before anything that another system lacks.
    sys.exit(
        f"titanflow runs on Linux only, and this system is {sys.platform}: use a Linux machine or container, or WSL2 "
        "on Windows. A published model needs none of this: transformers loads it anywhere."
    )

# Here for the same reason: as Prefect is imported in a terminal, it sends data about its use, and the first time it
# says so. Who wants that sets 0.
os.environ.setdefault("DO_NOT_TRACK", "1")
