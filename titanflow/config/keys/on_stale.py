"""The values of ``on_stale``, alone in a file: ``titanflow --help`` needs them, and none of the other keys."""

from typing import Literal

OnStale = Literal["error", "rerun", "keep"]
