"""Training on text that fits no disk: torchtitan's own loader, over a stream that `datasets` reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.components.tokenizer import BaseTokenizer
from torchtitan.config import JobConfig
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS

from titanflow.config.additions import Data
from titanflow.errors import ConfigError, DataError, Problem

BUILDERS = {
    ".txt": "text",
    ".md": "text",
    ".py": "text",
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
}
"""Which of the builders of `datasets` reads a file, by its ending."""

PREFIX = "titanflow_stream_"
RANK_STATE = "dataloader.dp_rank_"


def streamed(job_config: JobConfig, data: Data, section: str) -> JobConfig:
    """The config with ``section`` ("training" or "validation") reading ``data`` as a stream.

    Registers the stream among torchtitan's datasets; the config given stays as it was.
    """
    name = PREFIX + section
    DATASETS[name] = DatasetConfig(
        path=data.dataset or "",
        loader=lambda path: open_stream(data),
        sample_processor=partial(_text, column=_column(data)),
    )
    changed = replace(getattr(job_config, section), dataset=name, dataset_path=None)
    return replace(job_config, **{section: changed})


class WithinDocuments(BaseDataLoader):
    """torchtitan's loader of text, of which no document's last token is trained to begin the next one.

    torchtitan puts the tokenizer's beginning of text before each document and its end of text behind, and cuts rows
    from all of it. A tokenizer may have one token for both, which ends a document and begins the next: it is trained.
    """

    def __init__(self, loader: Any, tokenizer: BaseTokenizer) -> None:
        self.loader = loader
        begin, end = getattr(tokenizer, "bos_id", None), tokenizer.eos_id
        self.begin = begin if end not in (None, begin) else None

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        for inputs, labels in self.loader:
            yield inputs, labels if self.begin is None else labels.masked_fill(labels == self.begin, IGNORE_INDEX)

    def state_dict(self) -> dict[str, Any]:
        """The loader's."""
        state: dict[str, Any] = self.loader.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The loader's."""
        self.loader.load_state_dict(state_dict)


def open_stream(data: Data) -> datasets.IterableDataset:
    """The stream that a ``data`` section describes: a dataset by name, or local files.

    Raises:
        DataError: neither is given, no file is there, or the files have different or unknown endings.
    """
    if data.dataset:
        stream = datasets.load_dataset(
            data.dataset, data.config, split=data.split, revision=data.revision, streaming=True
        )
    else:
        files = _files(data.path)
        builder = _builder(files)
        extra = {"sample_by": "document"} if builder == "text" else {}
        stream = datasets.load_dataset(
            builder, data_files=[str(file) for file in files], split="train", streaming=True, **extra
        )
    return stream.take(data.limit) if data.limit else stream


def check_ranks(state_keys: Iterable[str], ranks: int) -> None:
    """Refuses to resume a stream on another number of ranks than it was saved by.

    Args:
        state_keys: the keys of the checkpoint's state dict.
        ranks: data-parallel ranks now.

    Raises:
        ConfigError: the numbers differ.
    """
    saved = sum(key.startswith(RANK_STATE) for key in state_keys)
    if saved and saved != ranks:
        raise ConfigError(
            Problem(
                f"the checkpoint was saved by {saved} data-parallel ranks, and this run has {ranks}: "
                "each rank reads its own part of a stream, which can't be divided again",
                key="data.streaming",
                expected=f"{saved} ranks (launcher.nproc_per_node, parallelism)",
                hint="prepared data (data.streaming: false) may be resumed on any number of ranks",
            )
        )


def _text(sample: Mapping[str, Any], column: str) -> str:
    if column not in sample:
        raise DataError(
            Problem(f"no column {column!r}", key="data.text_column", expected=f"one of {', '.join(sample)}")
        )
    return str(sample[column])


def _column(data: Data) -> str:
    is_plain = not data.dataset and _builder(_files(data.path)) == "text"
    return "text" if is_plain else data.text_column


def _files(path: str | list[str] | None) -> list[Path]:
    patterns = [path] if isinstance(path, str) else path or []
    found: list[Path] = []
    for pattern in patterns:
        place = Path(pattern)
        if place.is_dir():
            found += sorted(file for file in place.rglob("*") if file.suffix in BUILDERS)
        elif place.is_file():
            found.append(place)
        else:
            found += sorted(Path(place.anchor or ".").glob(str(place.relative_to(place.anchor))))
    if not found:
        raise DataError(Problem(f"no file found for {path!r}", key="data.path", expected="files or a dataset"))
    return found


def _builder(files: list[Path]) -> str:
    kinds = {BUILDERS.get(file.suffix, f"unknown ({file.suffix})") for file in files}
    if len(kinds) > 1 or not kinds <= set(BUILDERS.values()):
        raise DataError(
            Problem(
                f"can't stream {', '.join(sorted(kinds))} files together",
                key="data.path",
                expected=f"files of one kind, ending in one of {', '.join(BUILDERS)}",
            )
        )
    return kinds.pop()
