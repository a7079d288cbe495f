import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console, ConsoleDimensions
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from titanflow.common.console import Output, tell, uncut

TELLS = """
from pathlib import Path
from titanflow.common.console import tell
tell("one")
tell("two", to_errors=True)
Path({file!r}).touch()
"""
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


def test_a_line_goes_out_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    tell("größe")
    tell("wrong", to_errors=True)
    assert capfd.readouterr() == ("größe\n", "wrong\n")


def test_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    program = TELLS.format(file=str(tmp_path / "goes on"))
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        subprocess.run([sys.executable, "-c", program], stdout=full, stderr=full, check=False)
    assert (tmp_path / "goes on").exists()
