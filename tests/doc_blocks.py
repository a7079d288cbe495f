"""The fenced blocks of README.md and docs/*.md, each with the rule that says how it is tried.

A comment on the line before a block is its rule, unseen on the page::

    <!-- run: as it stands -->        its commands are run
    <!-- run: planned -->             the same, with `titanflow plan` in place of `titanflow run`
    <!-- run: by tests/… -->          that test runs them
    <!-- run: no: REASON -->          they aren't run; their options, keys and targets are looked for all the same
    <!-- read: KIND -->               YAML that the config reader takes: see test_yaml_blocks.py
    <!-- read: no: REASON -->         YAML of another program
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
LANGUAGES = ("sh", "console", "yaml", "python", "text")
COMMANDS = ("sh", "console")
_BLOCK = re.compile(r"^(?:<!-- (?P<rule>\w+: .*) -->\n)?```(?P<language>.*)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)
_PROMPT = re.compile(r"^\w*\$ ")
_HEREDOC = re.compile(r"<<(\w+)$")


@dataclass(frozen=True)
class Block:
    """One block; ``rule`` is empty where it has none."""

    page: str
    line: int
    language: str
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.rule in ("run: as it stands", "run: planned")

    def commands(self) -> list[list[str]]:
        """Each command as its words, without comments, prompts and what it printed."""
        return [words for text in self._joined() if (words := shlex.split(text, comments=True))]

    def _joined(self) -> Iterator[str]:
        """The commands, those of several lines as one; of a here-document only its first line."""
        lines = iter(self.text.splitlines())
        for line in lines:
            if self.language == "console" and not _PROMPT.match(line):
                continue
            command = _PROMPT.sub("", line) if self.language == "console" else line
            while not _is_whole(command):
                command = f"{command.removesuffix(chr(92))}\n{next(lines)}"
            if found := _HEREDOC.search(command):
                while next(lines) != found[1]:
                    pass
            yield command

    def here_documents(self) -> dict[str, str]:
        """File → the text that `cat > FILE <<END` writes into it."""
        return dict(re.findall(r"cat > (\S+) <<END\n(.*?)^END$", self.text, re.MULTILINE | re.DOTALL))


def _is_whole(command: str) -> bool:
    """Whether no quote is open and no line goes on."""
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return not command.endswith("\\")


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found["language"], found["rule"] or "", found["text"])
        for found in _BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]
