"""Looks at a user's files: what they hold, how training has to read them, and what is wrong with them.

Nothing here is asked of the user and nothing is guessed silently: what can't be told is an error, which says what
stands there. A look takes a bounded time: of many files some are looked at, of large ones the beginning.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from titanflow.common.errors import DataError, Problem, did_you_mean
from titanflow.config.keys.training import Document
from titanflow.data.files.file_rows import paragraphs
from titanflow.data.files.local_files import LocalFiles, local_files
from titanflow.data.inspect.chat_columns import ChatColumns, find_chat_columns, has_conversations
from titanflow.data.inspect.facts import FileFacts, chat_facts, text_facts
from titanflow.data.inspect.head import Head, read_head
from titanflow.data.inspect.misread import check_rows
from titanflow.data.inspect.text_columns import column_names, find_text_column, listed, text_lengths

FILES = 200
"""At most so many files are looked at, evenly among all."""
BYTES = 16 << 20
"""At most so many bytes of text are read in all."""
FEW = 50
"""Fewer documents are too few to hold some of them out, so that files are parted into smaller ones."""
REFUSED = ("rejected",)
"""Columns of what a model should not say."""
ROWS = 500
"""Rows by which the columns are told."""
SHOWN = 5
"""Malformed rows that a message names."""


@dataclass(frozen=True)
class Inspection:
    """Files of text or of conversations, and how to read them.

    Attributes:
        data: the keys of a ``data`` section that reads them, without ``path``.
        facts: what was found in each file that was looked at.
        found: all files, and those that were passed over.
    """

    kind: Literal["text", "chat"]
    path: list[str]
    data: dict[str, Any]
    facts: list[FileFacts]
    found: LocalFiles

    @property
    def is_whole(self) -> bool:
        """Whether every row was looked at; otherwise counts are estimates."""
        return len(self.facts) == len(self.found.files) and all(one.is_whole for one in self.facts)

    @property
    def rows(self) -> int:
        return self._of_all(sum(one.rows for one in self.facts))

    @property
    def size(self) -> int:
        """Bytes of text in all rows."""
        return self._of_all(sum(one.size for one in self.facts))

    def tokens(self, a_token: float) -> list[float]:
        """The tokens of each row that was looked at and can be trained on, sorted, if one has so many bytes."""
        return sorted(count for one in self.facts for count in one.tokens(a_token))

    @property
    def malformed(self) -> list[Problem]:
        return [problem for one in self.facts for problem in one.malformed]

    @property
    def different(self) -> int:
        """How many of the rows differ: equal ones are held out, or trained on, together."""
        texts = [text for one in self.facts for text in one.texts]
        return max(1, len(set(texts)) * self.rows // max(1, len(texts)))

    def texts(self, size: int) -> list[str]:
        """Texts of the rows, of about ``size`` bytes, from all files."""
        return [text[:size] for one in self.facts for text in _first(one.texts, max(1, size // len(self.facts)))]

    def _of_all(self, count: int) -> int:
        return count * len(self.found.files) // len(self.facts)


def inspect_text(path: Sequence[str], column: str | None = None, key: str = "--text") -> Inspection:
    """Looks at files of documents; ``column`` is the one that the user named, ``key`` what named the files.

    Raises:
        DataError: with all that keeps them from being read as documents.
    """
    found, heads = _heads(path, key)
    tables = {file: head for file, head in heads.items() if not head.is_text}
    named = {file: _text_column(file, head, column, key) for file, head in tables.items()}
    texts = [head for head in heads.values() if head.is_text]
    document = _document(texts, len(found.files)) if texts else "file"
    facts = [text_facts(file, head, named.get(file, ""), document) for file, head in heads.items()]
    _refuse_several(named, key, "one column in all files, or files of their own experiment")
    other = next((name for name in named.values() if name != "text"), None)
    data: dict[str, Any] = {} if other is None else {"text_column": other}
    data |= {"document": document} if document != "file" else {}
    inspection = Inspection("text", list(path), data, facts, found)
    if malformed := inspection.malformed:
        hint = "mend these rows, or take them out"
        raise DataError([replace(one, hint=hint) for one in malformed[:SHOWN]], max(0, len(malformed) - SHOWN))
    return inspection


def inspect_chats(
    path: Sequence[str], columns: Mapping[str, str], roles: Mapping[str, str], key: str = "--chats"
) -> Inspection:
    """Looks at files of conversations; ``columns`` and ``roles`` are those that the user named.

    Raises:
        DataError: with all that keeps them from being read as conversations.
    """
    found, heads = _heads(path, key)
    if plain := [file for file, head in heads.items() if head.is_text]:
        expected, hint = (
            "conversations: .jsonl, .json, .parquet, .csv or .tsv",
            f"--text {shlex.quote(str(plain[0]))} trains on it as text",
        )
        raise DataError(Problem(f"{plain[0]} is plain text", key, expected=expected, hint=hint))
    declared = {file: _chat_columns(file, head, columns, roles, key) for file, head in heads.items()}
    _refuse_several({file: _described(one) for file, one in declared.items()}, key, "one layout in all files")
    facts = [chat_facts(file, head, declared[file]) for file, head in heads.items()]
    first = next(iter(declared.values()))
    merged = {role: meant for one in declared.values() for role, meant in one.roles.items()}
    data: dict[str, Any] = {"kind": "chat", "chat_format": first.chat_format}
    data |= {"columns": first.columns} if first.columns else {}
    data |= {"roles": merged} if merged else {}
    inspection = Inspection("chat", list(path), data, facts, found)
    malformed, good = inspection.malformed, sum(len(one.lengths) for one in facts)
    if 2 * len(malformed) > good:
        message = f"{len(malformed)} of {len(malformed) + good} rows are no conversations"
        raise DataError([Problem(message, key), *malformed[:SHOWN]], max(0, len(malformed) - SHOWN))
    if malformed:
        inspection.data["malformed"] = "drop"
    return inspection


def _heads(path: Sequence[str], key: str) -> tuple[LocalFiles, dict[Path, Head]]:
    """All files, and the beginnings of those that are looked at.

    Raises:
        DataError: a file isn't there or can't be read, as training would refuse it.
    """
    heads: dict[Path, Head] = {}
    problems: list[Problem] = []
    try:
        found = local_files(list(path))
    except DataError as error:
        raise _keyed(error.problems, key) from None
    count = len(found.files)
    looked = [found.files[number * count // min(count, FILES)] for number in range(min(count, FILES))]
    for file in looked:
        try:
            heads[file] = read_head(file, BYTES // len(looked))
        except DataError as error:
            problems += error.problems
    empty = [(file, head) for file, head in heads.items() if not head.rows]
    problems += [(head.broken or [Problem(f"{file} has no rows", key)])[0] for file, head in empty]
    if problems:
        raise _keyed(problems, key)
    return found, heads


def _keyed(problems: Sequence[Problem], key: str) -> DataError:
    shown = [replace(one, key=key) for one in problems[:SHOWN]]
    return DataError(shown, max(0, len(problems) - SHOWN))


def _text_column(file: Path, head: Head, column: str | None, key: str) -> str:
    rows = [row for _, row in head.rows[:ROWS]]
    names = column_names(rows)
    check_rows(file, rows, key)
    if column is not None:
        if column not in names:
            raise _no_column(file, column, names, key)
        return column
    if (chats := has_conversations(rows)) and "text" not in names:
        hint = f"--chats {shlex.quote(str(file))} trains on them as conversations"
        raise DataError(Problem(f"{file} holds conversations, in the column {chats!r}", key, "", "documents", hint))
    if (found := find_text_column(rows)) is None:
        lengths = text_lengths(rows)
        likely = max(names, key=lambda name: lengths.get(name, 0))
        chats = f"if these are questions with answers: --chats {shlex.quote(str(file))}"
        hint = f"name it: {_column('text', likely)}; {chats}"
        message = f"{file} has no column that is clearly text; it has: {listed(names)}"
        raise DataError(Problem(message, key, expected="a column of documents", hint=hint))
    return found


def _chat_columns(
    file: Path, head: Head, columns: Mapping[str, str], roles: Mapping[str, str], key: str
) -> ChatColumns:
    rows = [row for _, row in head.rows[:ROWS]]
    names = column_names(rows)
    check_rows(file, rows, key)
    for name in columns.values():
        if name not in names and not has_conversations(rows):
            raise _no_column(file, name, names, key)
    found = find_chat_columns(rows, columns, roles)
    if found is None:
        hint = f"{_likely_pair(rows)}; if these are documents: --text {shlex.quote(str(file))}"
        message = f"{file} has no columns that are clearly conversations; it has: {listed(names)}"
        expected = "a list of messages, or a question and its answer"
        raise DataError(Problem(message, key, expected=expected, hint=hint))
    if found.unknown:
        message = f"{file} has the role{'s' * (len(found.unknown) > 1)} {', '.join(map(repr, found.unknown[:SHOWN]))}"
        hint = f"say what it is: --role {shlex.quote(f'{found.unknown[0]}=user')}"
        raise DataError(Problem(message, key, expected="user, assistant, system or tool", hint=hint))
    return found


def _likely_pair(rows: Sequence[Mapping[str, Any]]) -> str:
    """How to name the columns of a question and its answer, if two columns can be meant."""
    lengths = {name: length for name, length in text_lengths(rows).items() if name.strip().lower() not in REFUSED}
    longest = sorted(lengths, key=lambda name: lengths[name])[-2:]
    if len(longest) < 2:
        return 'a row is {"messages": [{"role": "user", "content": …}, …]}, or has a question and an answer'
    prompt, completion = (name for name in lengths if name in longest)
    return f"name them: {_column('prompt', prompt)} {_column('completion', completion)}"


def _column(known: str, name: str) -> str:
    """An option that names a column, as a shell takes it."""
    return f"--column {shlex.quote(f'{known}={name}')}"


def _no_column(file: Path, name: str, names: Sequence[str], key: str) -> DataError:
    message, hint = f"{file} has no column {name!r}; it has: {listed(names)}", did_you_mean(name, names)
    return DataError(Problem(message, "--column", expected=f"a column of {key}'s files", hint=hint))


def _refuse_several(named: Mapping[Path, str], key: str, expected: str) -> None:
    """Refuses files that have to be read in different ways: one source is read in one."""
    by_way = {way: file for file, way in reversed(list(named.items()))}
    if len(by_way) > 1:
        message = "; ".join(f"{file}: {way}" for way, file in list(by_way.items())[:SHOWN])
        hint = "rename the columns, or name files of one kind alone; an experiment mixes kinds by `data.mixture`"
        raise DataError(Problem(message, key, expected=expected, hint=hint))


def _described(declared: ChatColumns) -> str:
    return ", ".join([declared.chat_format, *(f"{known} {name!r}" for known, name in declared.columns.items())])


def _document(heads: Sequence[Head], files: int) -> Document:
    """What a document of plain text is: a file, unless there are too few to hold some of them out."""
    if files >= FEW:
        return "file"
    parted = sum(1 for head in heads for _, text in paragraphs(head.rows[0][1]) if text.strip())
    return "paragraph" if parted >= FEW else "line"


def _first(texts: Iterable[str], size: int) -> list[str]:
    taken, found = 0, []
    for text in texts:
        if taken >= size:
            break
        found.append(text)
        taken += len(text)
    return found
