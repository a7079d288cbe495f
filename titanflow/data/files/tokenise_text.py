"""Turns documents into prepared tokens, in parts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from titanflow.common.errors import Problem
from titanflow.config.keys.training import Data
from titanflow.data.chat.proof.inference_check import InferenceCheck
from titanflow.data.dataset_info import DatasetInfo
from titanflow.data.files.file_counts import count_files, totals
from titanflow.data.files.sources import Source, problems_error
from titanflow.data.files.text_source import TEXT
from titanflow.data.held_out.row_hash import text_hash
from titanflow.data.parts.mapped import column_values, list_lengths, list_values, map_rows
from titanflow.data.parts.work import Work
from titanflow.data.prepared import token_dtype, write_rows
from titanflow.data.tokenizer.special_tokens import SpecialTokens
from titanflow.data.tokenizer.text_encoder import TextEncoder
from titanflow.data.tokenizer.tokenizer import load_tokenizer

# Most characters that are encoded at once, so that memory doesn't grow with the longest document.
_PIECE = 1 << 18
# Characters on either side of a cut that show whether it changes tokens.
_AROUND = 512
# In each batch, the first document up to this length is encoded again as inference does, and compared.
_COMPARED = 1 << 20
BLANK = "blank"


def write_text(source: Source, data: Data, tokenizer: Path, fingerprint: str, folder: Path, work: Work) -> None:
    """Writes documents as one stream of tokens, each followed by the end of text.

    The rows have passed :func:`titanflow.data.files.text_source.check_text`; blank ones are left out and counted.
    A document that inference would encode differently is a DataError.
    """
    loaded = load_tokenizer(tokenizer)
    texts, options = source.rows.select_columns([TEXT]), {"tokenizer": str(tokenizer)}
    encoded = map_rows(texts, _encode_texts, options, work, batch_size=64, key=source.key and fingerprint + source.key)
    faults = enumerate(column_values(encoded, "problem"))
    found = [Problem.from_json(fault, source.origin(number)) for number, fault in faults if fault]
    if found:
        raise problems_error(found)
    lengths = list_lengths(encoded)
    kept = lengths[lengths > 0]
    sizes = column_values(encoded, "bytes")
    files = count_files(source, np.where(lengths > 0, "", BLANK).astype(object), sizes)
    tokens = int(kept.sum())
    info = DatasetInfo(
        kind="text",
        name=data.name,
        fingerprint=fingerprint,
        documents=len(kept),
        tokens=tokens,
        trained_tokens=tokens,
        bytes=int(sizes.sum()),
        dtype=token_dtype(loaded.vocab_size).__name__,
        vocab_size=loaded.vocab_size,
        pad_id=loaded.pad_id,
        longest=int(kept.max()),
        dropped={BLANK: blank} if (blank := len(lengths) - len(kept)) else {},
        files=files,
        passed_over=source.passed_over,
        part=data.part or "",
        elsewhere=totals(file["elsewhere"] for file in files),
        unread=source.unread,
    )
    places, hashes = source.places()[lengths > 0], column_values(encoded, "hash")[lengths > 0]
    write_rows(folder, info, list_values(encoded, "ids"), kept, places=places, hashes=hashes)


def text_pieces(text: str, encoder: TextEncoder, size: int = _PIECE) -> Iterator[str]:
    """Cuts a long text only where that doesn't change its tokens.

    It cuts after a line feed between two characters that aren't space, if the tokens around it stay the same. A text
    without such a place stays whole.
    """
    start, position = 0, size
    while position < len(text):
        end = text.find("\n", position - 1)
        while 0 <= end < len(text) - 1 and (
            text[end - 1].isspace()
            or text[end + 1].isspace()
            or not encoder.is_seam(text[max(0, end + 1 - _AROUND) : end + 1], text[end + 1 : end + 1 + _AROUND])
        ):
            end = text.find("\n", end + 1)
        if not 0 <= end < len(text) - 1:
            break
        yield text[start : end + 1]
        start, position = end + 1, end + 1 + size
    yield text[start:]


_loaded = lru_cache(maxsize=2)(load_tokenizer)


def _encode_texts(batch: dict[str, list[Any]], numbers: list[int], tokenizer: str) -> dict[str, Any]:
    loaded = _loaded(tokenizer)
    pieces = [list(text_pieces(text, loaded.text)) if text.strip() else [] for text in batch["text"]]
    opening = iter(loaded.text.encode_batch([row[0] for row in pieces if row], "opening"))
    continuing = iter(loaded.text.encode_batch([piece for row in pieces for piece in row[1:]], "continuing"))
    rows = [
        [token for number in range(len(row)) for token in next(continuing if number else opening)] for row in pieces
    ]
    end, dtype = [loaded.end_of_text_id], token_dtype(loaded.vocab_size)
    return {
        "ids": [np.asarray([*ids, *end] if ids else [], dtype) for ids in rows],
        "bytes": [len(text.encode()) if text.strip() else 0 for text in batch["text"]],
        "hash": np.array([text_hash(text) for text in batch["text"]], np.uint64),
        "problem": _compared(batch["text"], rows, tokenizer),
    }


def _compared(texts: list[str], rows: list[list[int]], tokenizer: str) -> list[str]:
    """For the first comparable text, the problem if inference encodes it differently, as JSON; empty for the others.

    Texts that quote special tokens can't be compared: inference doesn't take those as text.
    """
    special = SpecialTokens({text: token for text, (_, token) in _loaded(tokenizer).special.items()})
    problems = [""] * len(texts)
    for number, (text, ids) in enumerate(zip(texts, rows, strict=True)):
        if ids and len(text) <= _COMPARED and not special.pattern.search(text):
            fault = inference_check(tokenizer).text_fault(text, ids)
            problems[number] = json.dumps(asdict(fault)) if fault else ""
            break
    return problems


@lru_cache(maxsize=2)
def inference_check(tokenizer: str) -> InferenceCheck:
    return InferenceCheck(Path(tokenizer))
