import io
import sys

import pytest
from rich.console import Console, ConsoleDimensions
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from titanflow.common.console import Output, uncut

LONG = "/home/[bold]/:smile:/" + "x" * 400


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    table = Table(box=None, pad_edge=False)
    for heading in ("key", "value"):
        table.add_column(heading, no_wrap=True)
    table.add_row("a.path", LONG)
    monkeypatch.setattr(sys, "stdout", stream)
    out = Output()
    out.print(f"runs in {LONG}")
    out.print(Panel.fit(uncut(table)))
    return stream.getvalue()


# rich takes any of these for a reason to fold lines.
@pytest.mark.parametrize("variable", ["FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"])
def test_a_pipe_has_whole_lines(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "40" if variable == "COLUMNS" else "1")
    lines = shown(monkeypatch, io.StringIO()).splitlines()
    assert lines[0] == f"runs in {LONG}"
    assert any(f"a.path  {LONG}" in Text.from_ansi(line).plain for line in lines)


@pytest.mark.parametrize("columns", ["20", "80", "500"])
def test_a_terminal_folds_and_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    # What rich asks of a terminal, whatever other tests have made of the environment that it knows.
    monkeypatch.setattr(Console, "size", ConsoleDimensions(int(columns), 25))
    text = Text.from_ansi(shown(monkeypatch, Terminal())).plain
    assert "…" not in text
    panel = text.splitlines()[1:]
    assert all(len(line) <= int(columns) for line in panel)
    assert sum(line.count("x") for line in panel) == LONG.count("x")
