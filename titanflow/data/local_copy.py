"""Prepared rows on a machine's own disk: copied there once from shared storage, verified, and read by all its ranks.

A copy is a folder ``<name>-<digest>`` whose ``copy.json``, written last, has the SHA-256 of each file as it was read
from the shared storage. A copy without it, or with other bytes, is made again. Nothing here removes a copy of other
rows: the folder belongs to who named it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from titanflow.common.digests import digest, folder_digests
from titanflow.common.errors import ConfigError, DataError, Problem, StageFailed
from titanflow.common.staging import no_room, staged_folder
from titanflow.data.dataset_info import read_info
from titanflow.files.own_files import read_mapping
from titanflow.runs.contract import DATASET_FILE

COPY_FILE = "copy.json"
BLOCK_BYTES = 16 << 20
SPARE_BYTES = 64 << 20
"""What a copy leaves free, for others."""
KEY = "launcher.local_data"

Say = Callable[[str], None]


def local_place(named: str) -> Path:
    """The folder of ``launcher.local_data`` on this machine; ``$NAME`` is a variable of its environment.

    Raises:
        ConfigError: there is no such variable here, or the folder can't be made.
    """
    place = os.path.expandvars(named)
    if "$" in place:
        raise ConfigError(Problem(f"found {named!r}: no such variable on {os.uname().nodename}", KEY))
    try:
        Path(place).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{place} can't be made on {os.uname().nodename}: {error.strerror}"
        raise ConfigError(Problem(message, KEY, expected="a folder of each machine's own disk")) from error
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(Problem(f"{place} can't be written to on {os.uname().nodename}", KEY))
    return Path(place)


def copied(folder: Path, place: Path) -> Path:
    """The finished copy of a prepared folder, or the folder itself if it has none."""
    copy = place / _name(folder)
    return copy if (copy / COPY_FILE).is_file() else folder


def make_copy(folder: Path, place: Path, say: Say) -> bool:
    """Sees to it that a prepared folder has a sound copy; returns False where the disk has no room for one.

    One process at a time does this on a machine: the others wait, and find the copy. Of a mixture each source is
    copied by itself.
    """
    info = read_info(folder)
    if info.kind == "mixture":
        members = {name: Path(member) for name, member in info.mixture["members"].items()}
        # All are tried, so that what has room is local.
        made = [make_copy(member, place, say) for member in members.values()]
        local = {name: str(copied(member, place)) for name, member in members.items()}
        own = replace(info, mixture={**info.mixture, "members": local})
        return _in_place(folder, place, {DATASET_FILE: json.dumps(asdict(own)).encode()}, say) and all(made)
    return _in_place(folder, place, {}, say)


def _in_place(folder: Path, place: Path, changed: dict[str, bytes], say: Say) -> bool:
    """Makes a folder's copy unless it is there and sound; files in ``changed`` have other contents than there."""
    copy = place / _name(folder)
    with _alone(place, copy.name):
        there = (copy / COPY_FILE).is_file()
        if there and not (fault := _fault(copy, changed)):
            say(f"{folder.name}: read from {copy}, whose copy is sound")
            return True
        if there:
            say(f"{copy}: {fault}; the copy is made again")
        # Ranks of another job may still read it: they keep what they have open.
        shutil.rmtree(copy, ignore_errors=True)
        wanted = sum(path.stat().st_size for path in _files(folder))
        free = shutil.disk_usage(place).free
        if free < wanted + SPARE_BYTES:
            say(_full(folder, place, f"{free / 1e9:.1f} GB are free, and {wanted / 1e9:.1f} GB are needed"))
            return False
        try:
            with staged_folder(copy, COPY_FILE) as staged:
                _write(folder, staged, changed)
        except OSError as error:
            if not (said := no_room(error)):
                raise
            say(_full(folder, place, said))
            return False
    say(f"{folder.name}: {wanted / 1e9:.2f} GB copied to {copy}")
    return True


def _write(folder: Path, staged: Path, changed: dict[str, bytes]) -> None:
    digests = {}
    for path in _files(folder):
        target = staged / path.name
        if path.name in changed:
            target.write_bytes(changed[path.name])
            digests[path.name] = hashlib.sha256(changed[path.name]).hexdigest()
        else:
            digests[path.name] = _copy(path, target)
    if (found := folder_digests(staged)) != digests:
        names = ", ".join(name for name in digests if found.get(name) != digests[name])
        host = os.uname().nodename
        raise StageFailed(f"{staged}: {names} can't be read back as written: look after the disk of {host}")
    (staged / COPY_FILE).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


def _copy(source: Path, target: Path) -> str:
    """Copies a file, and returns the SHA-256 of what was read."""
    read = hashlib.sha256()
    with source.open("rb") as original, target.open("wb") as copy:
        while block := original.read(BLOCK_BYTES):
            read.update(block)
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())
        # What is compared afterwards comes from the disk, not from memory.
        os.posix_fadvise(copy.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return read.hexdigest()


def _fault(copy: Path, changed: dict[str, bytes]) -> str:
    """What is wrong with a finished copy; empty if nothing is."""
    try:
        written = read_mapping(copy / COPY_FILE)
        found = folder_digests(copy)
    except (OSError, DataError) as error:
        return f"can't be read ({error})"
    found.pop(COPY_FILE, None)
    expected = written | {name: hashlib.sha256(data).hexdigest() for name, data in changed.items()}
    different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    return f"{', '.join(different)} differs from what was copied" if different else ""


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _name(folder: Path) -> str:
    # dataset.json holds the fingerprint of all that the rows were made from.
    state = [(path.name, path.stat().st_size) for path in _files(folder)]
    return f"{folder.name}-{digest([(folder / DATASET_FILE).read_text(encoding='utf-8'), state])}"


def _full(folder: Path, place: Path, why: str) -> str:
    others = [path.parent.name for path in place.glob(f"*/{COPY_FILE}")]
    old = f"; old copies there, yours to delete: {', '.join(sorted(others))}" if others else ""
    return f"WARNING: no room in {place} for {folder.name} ({why}): it is read from {folder}, more slowly{old}"


@contextmanager
def _alone(place: Path, name: str) -> Iterator[None]:
    """Waits until no other process of this machine is at work on that copy; a killed one's lock is free at once."""
    with (place / f".{name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
