"""Where documents come from: local files, Hugging Face datasets and the built-in source, as ``datasets.Dataset``."""

from __future__ import annotations

import bisect
import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.config.additions import SOURCE_KEYS, Data
from titanflow.data import stdlib_text
from titanflow.data.local_files import LOADERS, local_files
from titanflow.data.staging import no_room
from titanflow.errors import DataError, Problem

if TYPE_CHECKING:
    from datasets import Dataset

# Characters of lines that are read at a time: what is read takes several times as much memory.
_CHUNK = 1 << 20
MAX_PROBLEMS = 20
"""So many of a source's problems are reported; the rest are counted."""


@dataclass(frozen=True)
class Source:
    """A source's documents, and where each stands.

    Attributes:
        rows: one column, ``text``.
        origin: a row's number → ``file:line`` (or ``file:row N`` where a format has no lines).
    """

    rows: Dataset
    origin: Callable[[int], str]


def load_source(data: Data, cache: Path) -> Source:
    """Reads what a data config names.

    Args:
        data: the config; exactly one of ``source``, ``path`` and ``dataset`` is set.
        cache: a folder for what ``datasets`` writes while it reads local files; the caller removes it.

    Raises:
        DataError: nothing is there, it can't be read, or lacks the column.
    """
    key = check_one_source(data)
    if data.source:
        source = _built_in(data)
    elif data.path:
        source = _from_files(data, local_files(data.path), cache)
    else:
        rows = _column(load_from_hub(data), data, str(data.dataset))
        source = Source(rows, lambda row: f"{data.dataset}:row {row + 1}")
    if len(source.rows) == 0:
        raise DataError(Problem(f"{data.name} has no rows", f"data.{key}"))
    if data.limit is not None and data.limit < len(source.rows):
        source = Source(source.rows.select(range(data.limit)), source.origin)
    return source


def check_one_source(data: Data) -> str:
    """The one of ``source``, ``path`` and ``dataset`` that a data config sets.

    Raises:
        DataError: none of them is set, or several.
    """
    given = [key for key in SOURCE_KEYS if getattr(data, key)]
    if len(given) != 1:
        found = " and ".join(f"data.{key}" for key in given) or "none of them"
        expected = "exactly one of data.source, data.path and data.dataset"
        raise DataError(Problem(f"{data.name or 'the data'} sets {found}", "data", expected=expected))
    return given[0]


def check_text(source: Source, data: Data, seq_len: int) -> None:
    """Refuses text that can't fill a row, before any of it is tokenised.

    Raises:
        DataError: the column isn't text, rows lack it, all are blank, or together they are too short.
    """
    found = source.rows.features["text"]
    key = "data.text_column"
    if getattr(found, "dtype", None) not in ("string", "large_string"):
        problem = Problem(f"column {data.text_column!r} of {data.name} is {found}", key, expected="a column of text")
        raise DataError(problem)
    if source.rows.data["text"].null_count:
        rows = (row for row, text in enumerate(source.rows["text"]) if text is None)
        raise problems_error([Problem("the row has no text", data.text_column, source.origin(row)) for row in rows])
    if not any(text.strip() for text in source.rows["text"]):
        raise DataError(Problem("there is nothing but blank space", key, origin=source.origin(0)))
    # A token is a byte or more, so this much can't be enough in any vocabulary.
    if (size := sum(len(text.encode()) + 1 for text in islice(source.rows["text"], seq_len + 1))) <= seq_len:
        expected = f"more than training.seq_len={seq_len} tokens"
        raise DataError(Problem(f"{data.name} holds only {size} bytes", "data", source.origin(0), expected))


def problems_error(problems: list[Problem]) -> DataError:
    """The error for a source's problems: the first :data:`MAX_PROBLEMS`, and how many more there are."""
    shown = problems[:MAX_PROBLEMS]
    if len(problems) > len(shown):
        shown = [*shown, Problem(f"… and {len(problems) - len(shown)} more problems of this kind in the data")]
    return DataError(shown)


def _built_in(data: Data) -> Source:
    from datasets import Dataset

    if data.source == "stdlib":
        pairs = stdlib_text.documents(data.split_part, data.limit)
        texts, origins = [text for text, _ in pairs], [origin for _, origin in pairs]
        return Source(Dataset.from_dict({"text": texts}), origins.__getitem__)
    raise DataError(Problem(f"there is no text in the source {data.source}", "data.source", expected="stdlib"))


def _from_files(data: Data, files: list[Path], cache: Path) -> Source:
    from datasets import concatenate_datasets

    parts: list[Dataset] = []
    origins: list[Callable[[int], str]] = []
    for group in _groups(files):
        part = _column(load_files(group, cache), data, f"{group[0]}")
        parts.append(part)
        origins.append(_group_origin(group, part))
    rows = parts[0] if len(parts) == 1 else concatenate_datasets(parts)
    return Source(rows, _joined_origin([len(part) for part in parts], origins))


def _groups(files: list[Path]) -> list[list[Path]]:
    """Plain text files are loaded together, a row each; others one by one, so that a row's file is known."""
    plain = [file for file in files if LOADERS[file.suffix] == "text"]
    return [*([plain] if plain else []), *([file] for file in files if LOADERS[file.suffix] != "text")]


def load_files(group: list[Path], cache: Path, loader: str = "") -> Dataset:
    """Reads files of one kind: plain text a row a file, unless ``loader`` is given as ``text`` (a row a line).

    Raises:
        DataError: they can't be read; says which line of which file, as far as a second look finds it.
    """
    from datasets import load_dataset

    options: dict[str, Any] = {}
    if loader == "text":
        options = {"chunksize": _CHUNK}
    elif LOADERS[group[0].suffix] == "text":
        options = {"sample_by": "document"}
    loader = loader or LOADERS[group[0].suffix]
    names = [str(file.absolute()) for file in group]
    try:
        if loader == "csv":
            options = _as_texts(group[0])
        return load_dataset(loader, data_files=names, split="train", cache_dir=str(cache), **options)
    except Exception as error:  # each loader fails in its own way; what matters is where
        if no_room(error):
            raise
        raise DataError(_reading_problems(group, error)) from error


def _as_texts(file: Path) -> dict[str, Any]:
    """Reads each column of a CSV file as text: "NA" is a word there, and 7 an answer."""
    from datasets import Features, Value

    with file.open(encoding="utf-8-sig", newline="") as lines:
        header = next(csv.reader(lines), [])
    return {"features": Features({name: Value("string") for name in header}), "keep_default_na": False}


def _reading_problems(group: list[Path], error: Exception) -> list[Problem]:
    """Says which line of which file can't be read, as far as a second look finds it."""
    key = "data.path"
    problems: list[Problem] = []
    for file in group:
        raw = file.read_bytes()
        lines = raw.split(b"\n") if file.suffix == ".jsonl" else [raw]
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode()
                if LOADERS[file.suffix] == "json" and text.strip():
                    json.loads(text)
            except UnicodeDecodeError as fault:
                if LOADERS[file.suffix] in ("json", "text", "csv"):
                    problems.append(
                        Problem(f"not UTF-8: {fault.reason} at byte {fault.start}", key, f"{file}:{number}")
                    )
            except json.JSONDecodeError as fault:
                where = number if file.suffix == ".jsonl" else fault.lineno
                problems.append(Problem(f"not JSON: {fault.msg} (column {fault.colno})", key, f"{file}:{where}"))
    cause: BaseException = error.__cause__ or error
    reason = (str(cause).splitlines() or [type(cause).__name__])[0]
    return problems[:MAX_PROBLEMS] or [Problem(f"can't be read: {reason}", key, origin=str(group[0]))]


def load_from_hub(data: Data) -> Dataset:
    """Reads a dataset of the Hub, or a local folder that ``datasets`` loads.

    Raises:
        DataError: it can't be loaded.
    """
    from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

    assert data.dataset is not None
    folder = Path(data.dataset).expanduser()
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            loaded = load_from_disk(str(folder))
            rows = loaded[data.split] if isinstance(loaded, DatasetDict) else loaded
        else:
            name = str(folder) if folder.is_dir() else data.dataset
            rows = load_dataset(name, data.config, split=data.split, revision=data.revision)
    except Exception as error:  # not found, no network, no such split or configuration: all say so
        if no_room(error):
            raise
        hint = (
            "" if folder.is_dir() else "a dataset's name on the Hub, or a local folder; without a network only folders"
        )
        reason = f"{type(error).__name__}: {error}"
        raise DataError(Problem(f"can't load {data.dataset}: {reason}", "data.dataset", hint=hint)) from error
    assert isinstance(rows, Dataset)
    return rows


def _column(rows: Dataset, data: Data, where: str) -> Dataset:
    """The one column that is asked for, as ``text``."""
    asked = data.text_column
    if asked not in rows.column_names:
        columns = ", ".join(rows.column_names)
        key, hint = "data.text_column", "set data.text_column to one of them"
        raise DataError(Problem(f"{where} has no column {asked!r}; it has: {columns}", key, hint=hint))
    rows = rows.select_columns([asked])
    return rows if asked == "text" else rows.rename_column(asked, "text")


def _group_origin(group: list[Path], rows: Dataset) -> Callable[[int], str]:
    file = group[0]
    if LOADERS[file.suffix] == "text":
        return lambda row: f"{group[row]}:1"
    if file.suffix == ".jsonl":
        with file.open("rb") as lines:
            numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
        if len(numbers) == len(rows):
            return lambda row: f"{file}:{numbers[row]}"
    return lambda row: f"{file}:row {row + 1}"


def _joined_origin(lengths: list[int], origins: list[Callable[[int], str]]) -> Callable[[int], str]:
    starts = [sum(lengths[:index]) for index in range(len(lengths))]

    def origin(row: int) -> str:
        part = bisect.bisect_right(starts, row) - 1
        return origins[part](row - starts[part])

    return origin
