"""File names are UTF-8 in whatever locale, for commands and the stages they start (Python's UTF-8 mode, PEP 540)."""

from __future__ import annotations

import io
import os
import sys

from titanflow.common.errors import ConfigError, Problem

STREAMS = "PYTHONIOENCODING"
"""The environment variable with the encoding of a process's standard streams."""


def restart_in_utf8_mode() -> None:
    """Restarts a process whose locale isn't UTF-8 in UTF-8 mode.

    In a Latin-1 locale ``Größe.txt`` would be another file than in a config or a stage. The terminal keeps its
    encoding.
    """
    if not _is_utf8_mode():
        os.environ.update({"PYTHONUTF8": "1", STREAMS: stream_encoding()})
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def replace_what_no_terminal_shows() -> None:
    """Writes a question mark for a character that the terminal's encoding lacks, which would end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def check_utf8_mode() -> None:
    """Refuses a process that decodes file names otherwise than the stages do: anything may start a flow.

    Raises:
        ConfigError: this process isn't in UTF-8 mode.
    """
    if not _is_utf8_mode():
        found = f"this process takes the names of files for {sys.getfilesystemencoding()}"
        raise ConfigError(Problem(found, "PYTHONUTF8", expected="PYTHONUTF8=1 in its environment, whatever the locale"))


def utf8_problem(text: str, key: str, origin: str = "") -> Problem | None:
    """The problem with an outside text that isn't UTF-8, whose bytes Python keeps as lone surrogates; else None."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return Problem(f"found {text!a}", key, origin, "a name or a text in UTF-8")
    return None


def stream_encoding() -> str:
    """The encoding for a child on this process's terminal: what it can't show becomes a question mark."""
    return f"{sys.stdout.encoding if sys.stdout else 'utf-8'}:replace"


def _is_utf8_mode() -> bool:
    return sys.getfilesystemencoding() == "utf-8"
