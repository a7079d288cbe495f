"""Files of every format, compressed or not, under names that some reader takes as more than a name."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet

NAMES = ("Book [2nd ed]", "a[1]", "what?", "all*", "a::b", "{x}", "zip:__a", "~", "100%", "ä 🙂", "-x", "a#b")
"""Names that some reader takes as more than a name."""


def zstd(raw: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(raw)
    return sink.getvalue().to_pybytes()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


def written(path: Path, text: str) -> Path:
    """A file of one document, in the format of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = path.suffix if path.suffix not in COMPRESS else Path(path.stem).suffix
    raw = {
        ".jsonl": json.dumps({"id": 1, "text": text}).encode() + b"\n",
        ".json": json.dumps([{"id": 1, "text": text}]).encode(),
        ".csv": f'id,text\n1,"{text}"\n'.encode(),
    }
    if ending == ".parquet":
        with path.open("wb") as file:
            pyarrow.parquet.write_table(pyarrow.table({"id": [1], "text": [text]}), file)
    else:
        path.write_bytes(COMPRESS.get(path.suffix, bytes)(raw.get(ending, text.encode())))
    return path
