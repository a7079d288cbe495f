"""A command in a terminal of its own, and the screen that a person sees of it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from watching import PATIENCE

CODES = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])|[\s\S]")


class Screen:
    """A terminal's lines, those that scrolled away included; it knows the codes that rich writes, and wraps nothing."""

    def __init__(self, rows: int = 1000) -> None:
        self.lines: list[str] = [""]
        self.has_cursor = True
        self._rows = rows
        self._row = self._column = 0
        self._torn = ""

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)

    def feed(self, text: str) -> None:
        text = self._torn + text
        whole = re.search(r"\x1b(?:\[[?0-9;]*)?$", text)
        self._torn = text[whole.start() :] if whole else ""
        for found in CODES.finditer(text[: whole.start()] if whole else text):
            if found[2]:
                self._obey(found[2], found[1])
            else:
                self._write(found[0])

    def _write(self, letter: str) -> None:
        if letter == "\n":
            self._row, self._column = self._row + 1, 0
            if self._row == len(self.lines):
                self.lines.append("")
        elif letter == "\r":
            self._column = 0
        else:
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + letter + line[self._column + 1 :]
            self._column += 1

    def _obey(self, code: str, argument: str) -> None:
        if code == "A":
            self._row = max(self._row - int(argument or 1), len(self.lines) - self._rows, 0)
        elif (code, argument) == ("K", "2"):
            self.lines[self._row] = ""
        elif code == "J":
            self.lines[self._row :] = [self.lines[self._row][: self._column]]
        elif code in "hl" and argument == "?25":
            self.has_cursor = code == "h"
        else:
            assert code == "m", f"an unknown code: {argument}{code}"


class Terminal:
    """Runs a command in a terminal of this size, which is its controlling one."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        columns: int = 100,
        rows: int = 50,
        cwd: Path | None = None,
    ) -> None:
        self.screen = Screen()
        self.stream = ""
        self._master, slave = pty.openpty()
        self.resize(columns, rows)
        environment = {"TERM": "xterm-256color", **(os.environ if env is None else env)}
        for name in ("CI", "COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            list(command),
            **{"stdin": slave, "stdout": slave, "stderr": slave},
            env=environment,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        """Reads until the screen shows ``text``."""
        deadline = time.monotonic() + PATIENCE
        while text not in str(self.screen):
            has_more = self._read()
            assert has_more, f"{text!r} isn't in:\n{self.screen}"
            assert time.monotonic() < deadline, f"{text!r} isn't in:\n{self.screen}"

    def wait(self) -> int:
        """Reads to the end, and returns the exit status."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        os.close(self._master)
        self.process.kill()
        self.process.wait()

    def _read(self) -> bool:
        """Reads what comes within a while; False at the end."""
        if not select.select([self._master], [], [], PATIENCE)[0]:
            return False
        try:
            piece = os.read(self._master, 1 << 16).decode(errors="replace")
        except OSError:
            # What Linux says of a terminal that nobody has open any more.
            return False
        self.stream += piece
        self.screen.feed(piece)
        return bool(piece)
