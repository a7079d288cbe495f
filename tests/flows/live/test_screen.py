"""The screen of a running flow, in a real terminal where its size counts."""

import io
import os
import pty
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress

import pytest
from rich.text import Text
from terminal import Screen as Shown

from flows.live import screen
from flows.live.screen import Screen, is_live


class Picture:
    """A view of lines that the test sets."""

    def __init__(self, *lines: str) -> None:
        self.shown = list(lines)
        self.news: list[Text] = []
        self.closed: list[BaseException | None] = []
        self.looked = threading.Event()
        self.sizes: list[tuple[int, int]] = []

    def look(self) -> list[Text]:
        found, self.news = self.news, []
        self.looked.set()
        return found

    def lines(self, width: int, height: int, ascii_only: bool) -> list[Text]:
        self.sizes.append((width, height))
        return [Text(line, no_wrap=True) for line in self.shown]

    def close(self, error: BaseException | None) -> None:
        self.closed.append(error)
        self.shown = [*self.shown, "closed"]


class Tty(io.StringIO):
    """Says of itself that it is a terminal; its size isn't known."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Tty:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Tty()


@contextmanager
def on(tty: Tty, view: Picture) -> Iterator[Screen]:
    """The view on a terminal that is stderr."""
    with redirect_stderr(tty), Screen(view, tty) as screen:
        yield screen


def seen(tty: Tty) -> Shown:
    shown = Shown()
    shown.feed(tty.getvalue())
    return shown


def test_lines_go_above_the_view_and_the_view_stays_at_the_end(tty: Tty) -> None:
    with on(tty, Picture("one", "two")):
        print("a line", file=sys.stderr)
        sys.stderr.write("and ")
        sys.stderr.write("another\nand a piece")
    assert str(seen(tty)) == "a line\nand another\nand a piece\none\ntwo\nclosed\n"
    assert seen(tty).has_cursor


def test_a_long_line_is_left_to_the_terminal_to_wrap(tty: Tty) -> None:
    long = "x" * 500 + "[red] :smile: \x1b[33mend\x1b[0m"
    with on(tty, Picture("view")):
        print(long, file=sys.stderr)
    assert "x" * 500 + "[red] :smile: end\nview" in str(seen(tty))


def test_nothing_is_lost_if_the_view_fails(tty: Tty) -> None:
    view = Picture("view")
    view.lines = lambda *_: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    with on(tty, view) as shown:
        print("first", file=sys.stderr)
        assert not shown.is_open
        print("second", file=sys.stderr)
    text = str(seen(tty))
    assert "the live view failed (ZeroDivisionError: division by zero); the run goes on\nfirst\nsecond\n" in text
    assert seen(tty).has_cursor


def test_an_error_of_the_flow_reaches_the_view_and_its_caller(tty: Tty) -> None:
    view, error = Picture("view"), ValueError("of the flow")
    with pytest.raises(ValueError, match="of the flow"), on(tty, view):
        raise error
    assert view.closed == [error]
    assert type(sys.stderr).__name__ != "_Above"


def test_a_handler_made_meanwhile_writes_into_the_terminal_afterwards(tty: Tty) -> None:
    with on(tty, Picture("view")):
        kept = sys.stderr
        assert kept.isatty()
        assert kept.encoding == "utf-8"
    kept.write("later\n")
    kept.flush()
    assert tty.getvalue().endswith("later\n")


def test_news_of_the_view_are_printed_above(tty: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "DRAW_SECONDS", 0.0)
    monkeypatch.setattr(screen, "CLOCK_SECONDS", 0.0)
    view = Picture("view")
    with on(tty, view):
        view.news = [Text("warning: old")]
        view.looked.clear()
        view.looked.wait()
    assert str(seen(tty)).startswith("warning: old\nview")


def test_a_burst_of_lines_is_written_at_once(tty: Tty) -> None:
    view = Picture("view")
    with on(tty, view):
        for number in range(1000):
            print(number, file=sys.stderr)
    assert str(seen(tty)).startswith("0\n1\n2\n")
    # At the start, at the end, and a few times if the machine is busy.
    assert len(view.sizes) < 100


def test_no_colour_is_no_colour(tty: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    view = Picture("view")
    view.lines = lambda *_: [Text("view", "red")]  # type: ignore[method-assign]
    with on(tty, view):
        print("\x1b[33mline\x1b[0m", file=sys.stderr)
    assert "\x1b[3" not in tty.getvalue()


def test_after_the_window_became_narrower_what_it_wrapped_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    size = [60]
    monkeypatch.setattr(os, "get_terminal_size", lambda fd=0: os.terminal_size((size[0], 20)))
    written = b""
    with os.fdopen(slave, "w", encoding="utf-8") as terminal, suppress(OSError):
        shown = Screen(Picture("x" * 50, "y" * 10), terminal)
        shown._live.start()
        for columns in (60, 20, 20):
            size[0] = columns
            shown._draw([])
        terminal.close()
        while piece := os.read(master, 4096):
            written += piece
    os.close(master)
    # The first line took three rows: two more are erased than the view has lines, and only once.
    wide, narrow, again = re.split(rb"\r\x1b\[2K", written, maxsplit=2)
    assert b"x" * 50 in wide
    assert wide.endswith(b"\x1b[2A\r\x1b[J")
    assert b"x" * 20 + b"\r\n" in narrow
    assert b"\x1b[2A" not in narrow + again


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "CI": "false"}, True),
        ({"TERM": "xterm", "CI": "true"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_where_there_is_a_view(environ: dict[str, str], expected: bool) -> None:
    assert is_live(Tty(), environ) is expected
    assert not is_live(io.StringIO(), environ)
