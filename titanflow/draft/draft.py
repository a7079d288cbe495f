"""Drafts an experiment from a user's own files: which modules there are, and each choice with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.hub_names import REPO_ID_EXPECTED, is_repo_id
from titanflow.common.quantities import short
from titanflow.config.keys.chat_columns import COLUMNS
from titanflow.config.keys.experiment import fitting_name, name_problem
from titanflow.data.inspect.inspection import Inspection, inspect_chats, inspect_text
from titanflow.draft.base import Base
from titanflow.draft.machine import Machine
from titanflow.draft.recipe import LONGER, Chats, Text, size_for
from titanflow.draft.sizes import llama, parameters_of, parse_size
from titanflow.draft.tokens import SAMPLE, SMALLEST, bytes_a_token, smaller, vocabulary


@dataclass(frozen=True)
class Asked:
    """What the command line asks for. ``columns`` and ``roles`` are by the names that this project has for them."""

    name: str
    text: Sequence[str] = ()
    chats: Sequence[str] = ()
    base: str | None = None
    size: str | None = None
    hub: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)

    def problems(self) -> list[Problem]:
        """What no look at a file is needed for."""
        found = [one for one in (_name_problem(self.name),) if one]
        if not self.text and not self.chats:
            expected = "--text FILES to train on, or --chats FILES with --base to fine-tune a model, or both"
            found.append(Problem("nothing to train on", "--text", expected=expected))
        elif not self.text and not self.base:
            message, hint = "conversations alone teach no language", "a model to begin with: --base OWNER/NAME"
            found.append(Problem(message, "--chats", expected="--text FILES too, or --base", hint=hint))
        if self.base and self.size:
            found.append(Problem(f"found {self.size}, and {self.base} has its size", "--size", expected="one of both"))
        if self.hub and not is_repo_id(self.hub):
            found.append(Problem(f"found {self.hub!r}", "--hub", expected=REPO_ID_EXPECTED))
        known = dict.fromkeys(["text", *(name for names in COLUMNS.values() for name in names)])
        for name in self.columns:
            if name not in known:
                found.append(Problem(f"no part {name!r} of a row", "--column", expected=f"one of {', '.join(known)}"))
        return found


@dataclass(frozen=True)
class Draft:
    """An experiment as it follows from the files and the machine, before its memory is known.

    ``model`` are a llama's arguments, None with a base; ``parameters`` counts either. ``row`` are the tokens of a row
    of text, ``chat_row`` of conversations.
    """

    asked: Asked
    machine: Machine
    text: Text | None
    chats: Chats | None
    base: Base | None
    model: dict[str, Any] | None
    parameters: int
    row: int
    chat_row: int

    @classmethod
    def of(cls, asked: Asked) -> Draft:
        """Looks at files, base and machine.

        Raises:
            ConfigError: what is asked contradicts itself, or the base can't be had.
            DataError: the files can't be read, or hold too little.
        """
        if problems := asked.problems():
            raise ConfigError(problems)
        wanted = parse_size(asked.size) if asked.size else None
        machine, base = Machine.here(), Base.of(asked.base) if asked.base else None
        columns = {known: name for known, name in asked.columns.items() if known != "text"}
        seen = inspect_text(asked.text, asked.columns.get("text")) if asked.text else None
        said = inspect_chats(asked.chats, columns, asked.roles) if asked.chats else None
        vocab_size = vocabulary(seen.size) if seen else SMALLEST
        text, chats = _measured(seen, said, vocab_size, base)
        model, parameters = None, base.parameters if base else 0
        if base is None:
            assert text is not None
            parameters = wanted or size_for(text.tokens, machine)
            model = llama(parameters, smaller(vocab_size, parameters))
            parameters = parameters_of(model)
        chat_row = chats.row(*_bounds(machine, text, base)) if chats else 0
        # An export's context is the row of its training: a base keeps as much of its own as there is time for.
        usual = min(base.found.seq_len, machine.longest_row) if base else machine.first_row
        row = text.row(chat_row, usual) if text else 0
        return cls(asked, machine, text, chats, base, model, parameters, row, chat_row)

    @property
    def held_out_text(self) -> int:
        """Documents that are held out: one part where conversations are evaluated, else two."""
        return self.text.held_out(self.row) * (1 if self.chats else 2) if self.text else 0

    @property
    def notes(self) -> list[str]:
        """What of the files isn't as a user may think."""
        found = []
        for seen in (one.seen for one in (self.text, self.chats) if one is not None):
            if not seen.is_whole:
                looked = f"{len(seen.facts)} of {len(seen.found.files)} files, the beginning of large ones"
                found.append(f"{', '.join(seen.path)}: looked at {looked}; counts are estimates")
            if seen.found.passed_over:
                reasons = ", ".join(f"{count} × {reason}" for reason, count in seen.found.passed_over.items())
                found.append(f"{', '.join(seen.path)}: passed over: {reasons}")
        if self.text and (share := self.text.largest):
            decided = "its hash decides whether it is trained on or held out"
            found.append(f"one document has {int(100 * share)} % of the text, and {decided}; part it into several")
        if self.text and (held_out := self.held_out_text) > self.text.seen.rows / 4:
            found.append(f"{held_out} of {self.text.seen.rows} documents are held out, and not trained on")
        if self.base and self.text and self.row < (known := self.base.found.seq_len):
            had = f"{self.base.named} has one of {known:,}"
            found.append(f"the model's context will be {self.row:,} tokens, as its text is trained in; {had}")
        if self.chats and (malformed := self.chats.seen.malformed):
            lines = "; ".join(str(problem).splitlines()[0] for problem in malformed[:3])
            found.append(f"{len(malformed)} malformed rows will be left out: {lines}")
        if self.chats and (longer := self.chats.longer(self.chat_row)):
            found.append(f"{short(longer)} conversations are longer than {self.chat_row} tokens and will be left out")
        return found


def _name_problem(name: str) -> Problem | None:
    """Why a name can't be an experiment's; one with its file's ending would be written to ``my.yaml.yaml``."""
    path = Path(name)
    is_file = path.suffix in (".yaml", ".yml")
    hint = f"as {fitting_name(path.stem if is_file else path.name)}"
    if is_file and len(path.parts) == 1:
        return Problem(
            f"found {name!r}", "NAME", expected="the experiment's name, without its file's ending", hint=hint
        )
    return name_problem(name, "NAME", hint=hint)


def _bounds(machine: Machine, text: Text | None, base: Base | None) -> tuple[int, int]:
    """The most tokens of a row of conversations: usually, and where many of them are longer."""
    usual = machine.longest_row
    longest = LONGER * usual if text is None else max(usual, min(LONGER * usual, text.longest_row))
    most = base.found.seq_len if base else longest
    return min(usual, most), min(longest, most)


def _measured(
    seen: Inspection | None, said: Inspection | None, vocab_size: int, base: Base | None
) -> tuple[Text | None, Chats | None]:
    """Both sources in tokens."""
    given = base.tokenizer if base else None
    samples = [one.texts(SAMPLE) if one else [] for one in (seen, said)]
    a_token = bytes_a_token(samples[0], samples[1], vocab_size, given)
    return Text(seen, a_token[0]) if seen else None, Chats(said, a_token[1]) if said else None
