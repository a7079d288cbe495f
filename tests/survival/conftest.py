"""The matrix is opt-in, and ends in a table."""

import io
from pathlib import Path

import pytest
from cells import CELLS
from rich.console import Console
from rich.table import Table


def pytest_configure(config: pytest.Config) -> None:
    """Holds the rows of the table."""
    config.stash[CELLS] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the matrix out unless it is asked for."""
    if not config.getoption("--survival"):
        for item in items:
            if "survival" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes half an hour: --survival runs it"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the table, and writes it as markdown where that is asked for."""
    cells = config.stash[CELLS]
    if not cells:
        return
    columns = list(cells[0].row())
    table = Table(*columns)
    for cell in cells:
        table.add_row(*map(str, cell.row().values()))
    printed = io.StringIO()
    Console(file=printed, width=200).print(table)
    terminalreporter.write(printed.getvalue())
    if wanted := config.getoption("--survival-table"):
        lines = [columns, ["---"] * len(columns), *(list(map(str, cell.row().values())) for cell in cells)]
        Path(wanted).write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))
