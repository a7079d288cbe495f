"""From a source's rows to prepared tokens, in parallel through ``datasets``."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from titanflow.config.additions import Data
from titanflow.data.chat import ChatEncoder, ChatRefused
from titanflow.data.chat_check import chat_problems, clean_messages
from titanflow.data.prepared import DatasetInfo, token_dtype, too_short, write_rows
from titanflow.data.sources import Source, problems_error
from titanflow.data.template import CHATML, template_text
from titanflow.data.tokenizer import load_tokenizer
from titanflow.errors import Problem

if TYPE_CHECKING:
    from datasets import Dataset

# A process costs a second to start; below this much text one is faster, and the tokenizer has threads anyway.
_BYTES_A_PROCESS = 32 << 20
# A document is encoded in pieces of this many characters at most, so that a book needs no book's worth of memory.
_PIECE = 1 << 18


@dataclass(frozen=True)
class Work:
    """How the work is done: in how many processes (None: as many as it is worth), and where ``datasets`` may write."""

    num_proc: int | None
    scratch: Path

    def processes(self, rows: Dataset) -> int:
        """How many processes to encode ``rows`` with."""
        worth = self.num_proc or 1 + (rows.data.nbytes or 0) // _BYTES_A_PROCESS
        return max(1, min(self.num_proc or os.cpu_count() or 1, worth, len(rows)))

    def cache_file(self) -> str:
        """A new file for encoded rows."""
        return str(self.scratch / f"encoded-{uuid.uuid4().hex}.arrow")


def write_text(source: Source, data: Data, tokenizer: Path, fingerprint: str, folder: Path, work: Work) -> None:
    """Writes documents as one stream of tokens, each followed by the end of text.

    The rows have passed :func:`titanflow.data.sources.check_text`; blank ones are left out and counted.
    """
    loaded = load_tokenizer(tokenizer)
    encoded = _map(source.rows, _encode_texts, {"tokenizer": str(tokenizer)}, data.name, work)
    lengths = _lengths(encoded)
    kept = lengths[lengths > 0]
    info = DatasetInfo(
        kind="text",
        name=data.name,
        fingerprint=fingerprint,
        documents=len(kept),
        tokens=int(kept.sum()),
        trained_tokens=int(kept.sum()),
        bytes=int(np.sum(encoded["bytes"])),
        dtype=token_dtype(loaded.vocab_size).__name__,
        vocab_size=loaded.vocab_size,
        pad_id=loaded.pad_id,
        longest=int(kept.max()),
        dropped=_counted({"blank": len(lengths) - len(kept)}),
    )
    write_rows(folder, info, _values(encoded, "ids"), None, kept)


def write_chats(
    source: Source,
    data: Data,
    tokenizer: Path,
    template: str,
    seq_len: int,
    fingerprint: str,
    folder: Path,
    work: Work,
) -> None:
    """Writes conversations, a row each, with the mask of what is trained.

    A conversation of more than ``seq_len + 1`` tokens is dropped and counted: cut short, it would end in the
    middle of an answer.

    Raises:
        DataError: conversations that can't be trained on (their first twenty problems), or none that fits.
    """
    loaded = load_tokenizer(tokenizer)
    encoder = ChatEncoder(loaded, template_text(template), template)
    options = {"tokenizer": str(tokenizer), "template": template}
    encoded = _map(source.rows, _encode_chats, options, data.name, work)
    _raise_problems(encoded, source)
    lengths = _lengths(encoded)
    fits = lengths <= seq_len + 1
    kept = encoded if fits.all() else encoded.select(np.flatnonzero(fits))
    info = DatasetInfo(
        kind="chat",
        name=data.name,
        fingerprint=fingerprint,
        documents=int(fits.sum()),
        rows=int(fits.sum()),
        tokens=int(lengths[fits].sum()),
        trained_tokens=int(sum(chunk.sum() for chunk in _values(kept, "trained"))),
        bytes=int(np.asarray(encoded["bytes"])[fits].sum()),
        dtype=token_dtype(loaded.vocab_size).__name__,
        vocab_size=loaded.vocab_size,
        pad_id=loaded.pad_id,
        seq_len=seq_len,
        longest=int(lengths[fits].max(initial=0)),
        end_of_turn_id=encoder.end_of_turn_id,
        dropped=_counted({"too_long": int((~fits).sum())}),
    )
    if info.documents == 0:
        raise too_short(info, seq_len)
    write_rows(folder, info, _values(kept, "ids"), _values(kept, "trained"), lengths[fits])


def text_pieces(text: str, size: int = _PIECE) -> Iterator[str]:
    """Cuts a long text where its tokens don't change: after a line end between two characters that aren't space.

    A text without such a place is cut nowhere.
    """
    start = 0
    position = size
    while position < len(text):
        end = text.find("\n", position - 1)
        while 0 <= end < len(text) - 1 and (text[end - 1].isspace() or text[end + 1].isspace()):
            end = text.find("\n", end + 1)
        if not 0 <= end < len(text) - 1:
            break
        yield text[start : end + 1]
        start, position = end + 1, end + 1 + size
    yield text[start:]


@lru_cache(maxsize=2)
def _encoder(tokenizer: str, template: str) -> ChatEncoder:
    return ChatEncoder(load_tokenizer(tokenizer), template_text(template), template)


_loaded = lru_cache(maxsize=2)(load_tokenizer)


def _encode_texts(batch: dict[str, list[Any]], tokenizer: str) -> dict[str, list[Any]]:
    loaded = _loaded(tokenizer)
    pieces = [list(text_pieces(text)) if text.strip() else [] for text in batch["text"]]
    flat = [piece for row in pieces for piece in row]
    encoded = iter(loaded.backend.encode_batch_fast(flat, add_special_tokens=False))
    rows = []
    for row in pieces:
        ids = [number for _ in row for number in next(encoded).ids]
        rows.append(np.asarray([*ids, loaded.end_of_text_id] if ids else [], token_dtype(loaded.vocab_size)))
    return {"ids": rows, "bytes": [len(text.encode()) if text.strip() else 0 for text in batch["text"]]}


def _encode_chats(batch: dict[str, list[Any]], tokenizer: str, template: str) -> dict[str, list[Any]]:
    encoder = _encoder(tokenizer, template)
    columns: dict[str, list[Any]] = {"ids": [], "trained": [], "bytes": [], "problems": []}
    for messages in batch["messages"]:
        messages = clean_messages(messages)
        problems = chat_problems(messages, "", template == CHATML)
        ids: list[int] = []
        trained: list[bool] = []
        if not problems:
            try:
                ids, trained = encoder.encode(messages)
            except ChatRefused as refused:
                problems = [Problem(str(refused), "messages")]
        columns["ids"].append(np.asarray(ids, token_dtype(encoder.tokenizer.vocab_size)))
        columns["trained"].append(np.asarray(trained, np.bool_))
        columns["bytes"].append(0 if problems else sum(len((turn["content"] or "").encode()) for turn in messages))
        columns["problems"].append(json.dumps([asdict(problem) for problem in problems]) if problems else "")
    return columns


def _map(rows: Dataset, function: Any, options: dict[str, str], name: str, work: Work) -> Dataset:
    processes = work.processes(rows)
    if processes > 1:
        # Each process would start threads for every core, and warn of the fork.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return rows.map(
        function,
        batched=True,
        batch_size=64 if function is _encode_texts else 512,
        fn_kwargs=options,
        remove_columns=rows.column_names,
        num_proc=processes if processes > 1 else None,
        load_from_cache_file=False,
        cache_file_name=work.cache_file(),
        desc=f"tokenising {name}",
    )


def _raise_problems(encoded: Dataset, source: Source) -> None:
    problems = []
    for row, found in enumerate(encoded["problems"]):
        for fields in json.loads(found) if found else []:
            problems.append(Problem(**{**fields, "origin": source.origin(row)}))
    if problems:
        raise problems_error(problems)


def _lengths(encoded: Dataset) -> NDArray[np.int64]:
    import pyarrow.compute as pc

    chunks = [pc.list_value_length(table["ids"]).to_numpy() for table in _tables(encoded)]
    return np.concatenate(chunks).astype(np.int64)


def _values(encoded: Dataset, column: str) -> Iterator[NDArray[Any]]:
    """The column's lists one after another, as large arrays."""
    for table in _tables(encoded):
        for chunk in table[column].chunks:
            yield chunk.flatten().to_numpy(zero_copy_only=False)


def _tables(encoded: Dataset) -> Iterator[Any]:
    yield from encoded.with_format("arrow").iter(batch_size=4096)


def _counted(dropped: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in dropped.items() if count}
