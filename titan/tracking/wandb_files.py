"""Reads W&B's recordings (``run-<id>.wandb``), and removes steps after a checkpoint from them.

A recording is a log in LevelDB's format: a header of 7 bytes, then blocks of 32 KiB with chunks of (crc32, length,
kind). A record may cross blocks, a chunk never. wandb 0.31 has no reader in Python (``wandb sync`` is a binary).
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Container, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

HEADER_BYTES = 7
BLOCK_BYTES = 32 * 1024
CHUNK = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def recordings(folder: Path, run_id: str) -> list[Path]:
    """The recordings of a run in a stage's folder, oldest first."""
    found = (folder / "wandb").glob(f"*run-*-{run_id}/run-{run_id}.wandb")
    # The order of two from the same second doesn't matter: one of them has logged nothing.
    return sorted(found, key=lambda path: path.parent.name.removeprefix("offline-"))


def is_final(recording: Path) -> bool:
    """Whether it was online or synced: a server may have its content, so nothing can be taken back."""
    return not recording.parent.name.startswith("offline-") or recording.with_name(f"{recording.name}.synced").exists()


def chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The (kind, content) of a recording's chunks, up to the first incomplete one."""
    position = HEADER_BYTES
    while position + CHUNK.size <= len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < CHUNK.size:
            position += left
            continue
        checksum, length, kind = CHUNK.unpack_from(data, position)
        content = data[position + CHUNK.size : position + CHUNK.size + length]
        is_whole = kind in (FULL, FIRST, MIDDLE, LAST) and len(content) == length
        if not is_whole or zlib.crc32(bytes([kind]) + content) != checksum:
            return
        position += CHUNK.size + length
        yield kind, content


def messages(data: bytes) -> Iterator[bytes]:
    """The complete records of a recording, as protobuf's bytes."""
    parts: list[bytes] = []
    for kind, content in chunks(data):
        if kind in (FULL, FIRST):
            parts = []
        parts.append(content)
        if kind in (FULL, LAST):
            yield b"".join(parts)


def parsed(data: bytes) -> Iterator[tuple[bytes, Any]]:
    """The records with their content (``wandb.proto``'s ``Record``)."""
    from wandb.proto.wandb_internal_pb2 import Record

    for message in messages(data):
        record = Record()
        record.ParseFromString(message)
        yield message, record


def history(recording: Path) -> list[tuple[int, dict[str, Any]]]:
    """The logged (step, name → value) in the file's order; W&B's own names begin with ``_``."""
    return [
        (
            record.history.step.num,
            {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item},
        )
        for _, record in parsed(recording.read_bytes())
        if record.WhichOneof("record_type") == "history"
    ]


def steps(recording: Path) -> set[int]:
    return {step for step, _ in history(recording)}


def keep_steps(recording: Path, wanted: Container[int]) -> set[int]:
    """Removes all other steps, and an incomplete end, from a recording; returns the steps kept."""
    data = recording.read_bytes()
    # If the records can't be rewritten to the byte, this wandb has another format.
    if not data.startswith(data[:HEADER_BYTES] + packed(messages(data))):
        raise ValueError(f"{recording}: wandb {version('wandb')} records otherwise than 0.31 did; it is left as it is")
    kept: list[bytes] = []
    held: set[int] = set()
    for message, record in parsed(data):
        if record.WhichOneof("record_type") == "history":
            step = record.history.step.num
            if step not in wanted or step in held:
                continue
            held.add(step)
        kept.append(message)
    temporary = recording.with_name(f".{recording.name}.{os.getpid()}")
    temporary.write_bytes(data[:HEADER_BYTES] + packed(kept))
    # A helper of a killed process may still write: it keeps the old file.
    temporary.replace(recording)
    return held


def packed(records: Iterable[bytes]) -> bytes:
    """Records as the blocks of a recording, after its header."""
    out = bytearray(HEADER_BYTES)
    for record in records:
        rest, kind = record, FULL
        while True:
            left = BLOCK_BYTES - len(out) % BLOCK_BYTES
            if left < CHUNK.size:
                out += bytes(left)
                left = BLOCK_BYTES
            content, rest = rest[: left - CHUNK.size], rest[left - CHUNK.size :]
            begins = kind == FULL
            kind = (FIRST if begins else MIDDLE) if rest else (FULL if begins else LAST)
            out += CHUNK.pack(zlib.crc32(bytes([kind]) + content), len(content), kind) + content
            if not rest:
                break
    return bytes(out[HEADER_BYTES:])
