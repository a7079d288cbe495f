"""The terminal of a running flow: what is printed scrolls by above, and below stays a view that is drawn anew.

Only one thread writes to the terminal, so that no line breaks into a redraw. The cursor is never hidden: whatever ends
the process, the terminal is left as it was.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import IO, Any, Protocol

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from titanflow.common.console import Output

DRAW_SECONDS = 0.25
"""How long a printed line may wait: the terminal is written to at most four times a second."""
CLOCK_SECONDS = 1.0
"""How often the view is drawn if nothing is printed; its figures change every two seconds."""
SMALLEST = ConsoleDimensions(80, 25)
"""Of a terminal that doesn't know its size."""


class View(Protocol):
    """What stays below: lines that fit into the given width and height."""

    def look(self) -> list[Text]:
        """Looks for news; returns the lines to print above."""

    def lines(self, width: int, height: int, ascii_only: bool) -> list[Text]: ...

    def close(self, error: BaseException | None) -> None:
        """The flow has ended, perhaps by an error; the view is drawn once more."""


def is_live(stream: IO[str], environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream leads to a terminal that a person watches and that can draw."""
    ci = environ.get("CI", "").lower() not in ("", "0", "false")
    return stream.isatty() and environ.get("TERM", "") not in ("", "dumb", "unknown") and not ci


class Terminal(Output):
    """The console of one stream, with the size that it has now: ``COLUMNS`` is a shell's of some time ago."""

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        with contextlib.suppress(OSError, ValueError):
            columns, rows = os.get_terminal_size(self.file.fileno())
            if columns and rows:
                return ConsoleDimensions(columns, rows)
        return SMALLEST


class Screen:
    """Prints above and draws below for the length of the block; stdout and stderr go through it if they are terminals.

    If the view fails, lines are printed as if there were none.
    """

    def __init__(self, view: View, stream: IO[str]) -> None:
        self._view = view
        self._stream = stream
        self._console = Terminal(file=stream)
        # Live would take lines from any thread, and a redraw from another at the same time.
        self._live = Live(
            _Drawn(self), console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._printed: deque[str] = deque()
        self._torn = ""
        self._widths: list[int] = []
        self._width = 0
        self._drawn_at = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="live-view", daemon=True)
        self.is_open = False

    def __enter__(self) -> Screen:
        self.is_open = True
        self._live.start()
        self._console.show_cursor(True)
        self._guarded(lambda: self._draw([]))
        self._replaced = contextlib.ExitStack()
        for name, redirect in (("stdout", contextlib.redirect_stdout), ("stderr", contextlib.redirect_stderr)):
            if (own := getattr(sys, name)) is not None and own.isatty():
                self._replaced.enter_context(redirect(_Above(self, own)))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._ended.set()
            self._thread.join()
        finally:
            self._replaced.close()
            if self.is_open:
                self._guarded(lambda: self._last_look(error))
                self.is_open = False
            self._pass_on()

    def print(self, text: str) -> None:
        """Takes a piece of text. A signal's handler may come here in the middle of another call: nothing is locked."""
        self._printed.append(text)

    def lines(self, console: Console, options: ConsoleOptions) -> list[Text]:
        # A ^C that the terminal echoes behind the last line must not make it two.
        width = max(1, options.size.width - 3)
        found = self._view.lines(width, max(1, options.size.height - 1), options.ascii_only)
        self._widths, self._width = [cell_len(line.plain) for line in found], options.size.width
        return found

    def _follow(self) -> None:
        while self.is_open and not self._ended.wait(DRAW_SECONDS):
            is_due = time.monotonic() - self._drawn_at >= CLOCK_SECONDS
            if self._printed or is_due:
                self._guarded(lambda: self._draw(self._view.look()))
        if not self.is_open:
            self._pass_on()

    def _last_look(self, error: BaseException | None) -> None:
        found = self._view.look()
        self._view.close(error)
        self._draw(found, is_last=True)
        self._live.stop()

    def _draw(self, above: list[Text], is_last: bool = False) -> None:
        self._drawn_at = time.monotonic()
        whole, end, self._torn = (self._torn + self._taken()).rpartition("\n")
        if is_last and self._torn:
            whole, end, self._torn = f"{whole}{end}{self._torn}", "\n", ""
        lines = [*([Text.from_ansi(whole)] if end else []), *above]
        self._unwrap()
        if lines:
            self._console.print(Text("\n").join(lines))
        else:
            self._live.refresh()

    def _unwrap(self) -> None:
        """After a terminal became narrower: goes up by the rows that it made of the lines that don't fit any more."""
        width = self._console.width
        if 0 < width < self._width and (more := sum((wide - 1) // width for wide in self._widths if wide)):
            self._stream.write(f"\x1b[{more}A\r\x1b[J")

    def _taken(self) -> str:
        found = []
        while self._printed:
            found.append(self._printed.popleft())
        return "".join(found)

    def _guarded(self, draw: Callable[[], None]) -> None:
        try:
            draw()
        except Exception as error:
            # A picture must not end a run, nor keep its lines.
            self.is_open = False
            with contextlib.suppress(Exception):
                self._view.close(None)
                self._live.stop()
            self._stream.write(f"the live view failed ({type(error).__name__}: {error}); the run goes on\n")

    def _pass_on(self) -> None:
        if text := self._torn + self._taken():
            self._torn = ""
            self._stream.write(text)
            self._stream.flush()


class _Drawn:
    """The view as rich draws it."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._screen.lines(console, options)


class _Above:
    """Stands in for stdout or stderr. Handlers of logs keep it when the screen is closed: then it is the stream."""

    def __init__(self, screen: Screen, own: IO[str]) -> None:
        self._screen = screen
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def write(self, text: str) -> int:
        if not self._screen.is_open:
            return self._own.write(text)
        self._screen.print(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self._screen.is_open:
            self._own.flush()
