"""Python's collector of garbage beside imports, of which it finds none."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """No garbage is looked for inside: what importing the libraries makes stays, all of it, and looking through it
    again and again is a fifth of the start-up."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
