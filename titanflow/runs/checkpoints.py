"""Where a stage's checkpoints lie, which of them are complete, and what they hold; read without torch.

torch's distributed checkpoint writes data files, each synced to the disk, and then renames ``.metadata`` into its
place, which says where in them each tensor lies. A folder without it was left by an interrupted save; one with shorter
files than it says was damaged afterwards.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from titanflow.common.collector import collector_at_rest
from titanflow.common.errors import ConfigError, DataError, Problem

CHECKPOINTS = "checkpoint"
"""The folder of them in a training stage's own."""
METADATA = ".metadata"
TRAINING_STATE = ("optimizer", "lr_scheduler", "dataloader", "train_state")
"""The parts of a full checkpoint beside the model, whose own keys lie flat at the top."""
TRAINED = "trained"
"""The part of a full checkpoint that holds the trained weights themselves, if its model is their moving mean."""
RECORDS = ("MetadataIndex", "ChunkStorageMetadata", "_StorageInfo")
PARTS_FOLDER = "parts"
"""A prepare step's folder of what it has done so far: ``<work>/<number>.arrow``."""
SHOWN = 5
"""How many differences a refusal names."""


def exclusion_refusal(keys: Sequence[str]) -> str:
    """Why a run can't be resumed without these parts of its checkpoint; empty where it can.

    Args:
        keys: ``checkpoint.exclude_from_loading``.
    """
    if unknown := sorted(set(keys) - set(TRAINING_STATE) - {"model"}):
        return f"found {unknown[0]!r}, and a checkpoint has no such part"
    if "model" in keys:
        return "found 'model': a resumed run would continue with untrained weights"
    if "optimizer" in keys and "lr_scheduler" not in keys:
        return "found 'optimizer' without 'lr_scheduler': a new optimizer would ignore the schedule's rate"
    return ""


class Piece(NamedTuple):
    """Where a part of a tensor, or an object, lies: ``length`` bytes from ``offset`` on, an archive of ``torch.save``.

    There is one for each tensor and rank: of a model of 8 B parameters that 512 ranks saved, half a million.
    """

    file: str
    offset: int
    length: int


@dataclass(frozen=True)
class Contents:
    """What a checkpoint's ``.metadata`` says: the shape of each tensor by key, () of an object, and the bytes that each
    file has at least."""

    shapes: dict[str, tuple[int, ...]]
    files: dict[str, int]


def step_folders(folder: Path) -> dict[int, Path]:
    """The ``step-N`` folders in ``folder`` by step, newest first, complete or not."""
    found = {int(match[1]): path for path in folder.glob("step-*") if (match := re.fullmatch(r"step-(\d+)", path.name))}
    return dict(sorted(found.items(), reverse=True))


def complete_folders(folder: Path) -> Iterator[tuple[int, Path]]:
    """Those of :func:`step_folders` whose save finished and whose files have their full length.

    Each is looked at only when it is asked for: most callers want the newest.
    """
    return ((step, path) for step, path in step_folders(folder).items() if not flaw(path))


def is_due(step: int, saving: Mapping[str, Any], kept_step: int | None) -> bool:
    """Whether a training saves a step whatever befalls it: by its section ``checkpoint``, or as the ``kept_step``.

    Beside these lie its last step, that of an earlier end which more steps went on from, and steps at which a SIGTERM
    interrupted it.
    """
    is_first = step == 1 and saving["enable_first_step_checkpoint"]
    return is_first or step % saving["interval"] == 0 or step == kept_step


def superfluous(folder: Path, newest: int, saving: Mapping[str, Any], kept_step: int | None) -> list[Path]:
    """The checkpoints in ``folder`` that aren't kept, oldest first.

    Kept are the ``newest`` few, the newest few that are due (:func:`is_due`), lest those of interruptions take their
    place, and the one of ``kept_step``.
    """
    others = {step: path for step, path in step_folders(folder).items() if step != kept_step}
    due = [step for step in others if is_due(step, saving, kept_step)]
    kept = {*list(others)[:newest], *due[:newest]}
    return [path for step, path in others.items() if step not in kept][::-1]


def invalidate(path: Path) -> None:
    """Makes a checkpoint incomplete before it is overwritten, so that it counts only once it is whole again."""
    (path / METADATA).unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> Path:
    """The newest complete checkpoint of a ``checkpoint/`` folder.

    Raises:
        DataError: there is none.
    """
    for _, path in complete_folders(folder):
        return path
    raise DataError(Problem("no complete checkpoint", origin=str(folder), expected="step-N with a .metadata"))


def newest_step(stage_folder: Path) -> int | None:
    """The step of the newest complete checkpoint below a stage's folder; None where there is none."""
    return next((step for step, _ in complete_folders(stage_folder / "checkpoint")), None)


def is_full(path: Path) -> bool:
    """Whether training can go on from a checkpoint; otherwise it holds the model alone."""
    return any(key.startswith("optimizer.") for key in read_contents(path).shapes)


def full_steps(folder: Path) -> Iterator[int]:
    """The steps of the complete checkpoints in ``folder`` that training can go on from, newest first."""
    return (step for step, path in complete_folders(folder) if is_full(path))


def saved_so_far(stage_folder: Path) -> str:
    """From what a stage would go on, as ``step 120`` or ``14 finished parts``; empty if it saved nothing yet."""
    if (step := newest_step(stage_folder)) is not None:
        return f"step {step}"
    parts = sum(1 for _ in (stage_folder / PARTS_FOLDER).glob("*/*.arrow"))
    return f"{parts} finished part{'s' if parts > 1 else ''}" if parts else ""


def read_contents(path: Path) -> Contents:
    """What a checkpoint holds, by its ``.metadata``, whose pickle is read without running anything in it.

    Raises:
        OSError: there is no ``.metadata``.
        ValueError: it can't be read.
    """
    state = (path / METADATA).stat()
    return _contents(path, (state.st_mtime_ns, state.st_size, state.st_ino))


@lru_cache(maxsize=4)
def _contents(path: Path, _written: tuple[int, int, int]) -> Contents:
    with _metadata(path) as metadata:
        ends: dict[str, int] = {}
        for place in (metadata.storage_data or {}).values():
            ends[place.relative_path] = max(ends.get(place.relative_path, 0), place.offset + place.length)
        return Contents({key: _shape(item) for key, item in metadata.state_dict_metadata.items()}, ends)


def read_pieces(path: Path) -> list[Piece]:
    """Where each part of a checkpoint lies.

    Raises:
        OSError: there is no ``.metadata``.
        ValueError: it can't be read.
    """
    with _metadata(path) as metadata:
        places = (metadata.storage_data or {}).values()
        return [Piece(place.relative_path, place.offset, place.length) for place in places]


@contextlib.contextmanager
def _metadata(path: Path) -> Iterator[Any]:
    with (path / METADATA).open("rb") as file, collector_at_rest():
        try:
            yield _Plain(file).load()
        except Exception as error:
            raise ValueError(f"{METADATA} can't be read ({type(error).__name__}: {error})") from error


def stored_model(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of what a checkpoint holds of the model, by key."""
    shapes = read_contents(checkpoint).shapes
    return {key: shape for key, shape in shapes.items() if key.split(".")[0] not in (*TRAINING_STATE, TRAINED)}


def flaw(path: Path) -> str:
    """What a checkpoint lacks, by its files' sizes; empty where it is complete."""
    try:
        contents = read_contents(path)
    except FileNotFoundError:
        return f"no {METADATA}: its save was interrupted" if path.is_dir() else "there is no such folder"
    except (OSError, ValueError) as error:
        return str(error)
    for name, end in contents.files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if (size := file.stat().st_size) < end:
            return f"{name} has {size:,} of {end:,} bytes"
    return ""


def damage(path: Path, part: int = 0, parts: int = 1) -> str:
    """What in a complete checkpoint differs from what was written, by its archives' checksums; empty if nothing does.

    After a power cut a file may have its length but zeros for bytes. As this reads every byte, several processes may
    share the work: each looks at one of ``parts``.
    """
    for piece in read_pieces(path)[part::parts]:
        with (path / piece.file).open("rb") as file:
            try:
                with zipfile.ZipFile(_Slice(file, piece)) as archive:
                    broken = archive.testzip()
            except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
                return f"{piece.file} is damaged at byte {piece.offset:,} ({error})"
        if broken:
            return f"{piece.file} is damaged at byte {piece.offset:,} (wrong checksum)"
    return ""


def differences(stored: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """How stored shapes differ from those that a model wants, a clause each."""
    return [
        *(f"lacks {key}" for key in wanted if key not in stored),
        *(f"has {key}, which the model lacks" for key in stored if key not in wanted),
        *(
            f"has {key} of shape {stored[key]}, the model's is {shape}"
            for key, shape in wanted.items()
            if key in stored and stored[key] != shape
        ),
    ]


def refuse_other(
    clauses: list[str],
    path: Path,
    found: str = "the checkpoint isn't this model's",
    hint: str = "give the model the arguments that the checkpoint was trained with",
    key: str = "",
) -> None:
    """Refuses the weights at ``path`` if there are clauses, such as those of :func:`differences`.

    Raises:
        ConfigError: with ``found``, the first few clauses, and how many more there are.
    """
    if clauses:
        more = f" and {len(clauses) - SHOWN} more" if len(clauses) > SHOWN else ""
        raise ConfigError(Problem(f"{found}: it {'; '.join(clauses[:SHOWN])}{more}", key, str(path), hint=hint))


class _Slice(io.RawIOBase):
    def __init__(self, file: IO[bytes], piece: Piece) -> None:
        self._file, self._piece, self._at = file, piece, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._piece.length}[whence]
        if start + offset < 0:
            raise ValueError("before the start")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(min(len(buffer), self._piece.length - self._at), 0)
        self._file.seek(self._piece.offset + self._at)
        read = self._file.read(wanted)
        buffer[: len(read)] = read
        self._at += len(read)
        return len(read)


class _Stub:
    """Stands for every class that a pickle names: keeps its attributes and does nothing else."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _Record:
    """Stands for the classes of which there is an object for each tensor and rank; unpickled without a call."""


class _Plain(pickle.Unpickler):
    """Unpickles without importing anything that the pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch", "Size"):
            return tuple
        return _Record if name in RECORDS else _Stub


def _shape(item: Any) -> tuple[int, ...]:
    """A tensor's shape by its unpickled metadata; an object has no size."""
    return tuple(item.size) if hasattr(item, "size") else ()
