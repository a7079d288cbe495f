"""Training on text that fits no disk: torchtitan's own loader, over a stream that `datasets` reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.components.tokenizer import BaseTokenizer
from torchtitan.config import JobConfig
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS

from titanflow.common.errors import ConfigError, DataError, Problem
from titanflow.config.keys.training import Data, HeldOut
from titanflow.data.files.local_files import local_files
from titanflow.data.files.spans import WHOLE
from titanflow.data.files.text_source import TEXT, text_rows
from titanflow.data.held_out.parts import part_by_share
from titanflow.data.held_out.row_hash import text_hash

if TYPE_CHECKING:
    import datasets

PREFIX = "titanflow_stream_"
RANK_STATE = "dataloader.dp_rank_"


def streamed(job_config: JobConfig, data: Data, section: str) -> JobConfig:
    """The config with ``section`` ("training" or "validation") reading ``data`` as a stream.

    Registers the stream among torchtitan's datasets. The config given stays as it was.
    """
    name = PREFIX + section
    DATASETS[name] = DatasetConfig(
        path=data.dataset or "",
        loader=lambda path: open_stream(data),
        sample_processor=partial(_text, column=data.text_column if data.dataset else TEXT),
    )
    changed = replace(getattr(job_config, section), dataset=name, dataset_path=None)
    return replace(job_config, **{section: changed})


class WithinDocuments(BaseDataLoader):
    """torchtitan's loader of text, without the label by which a document's end predicts the next one's beginning.

    torchtitan puts the tokenizer's beginning of text before each document and its end of text behind, and cuts rows
    from the whole. A tokenizer may have one token for both: it ends a document too, so its label stays.
    """

    def __init__(self, loader: Any, tokenizer: BaseTokenizer) -> None:
        self.loader = loader
        begin, end = getattr(tokenizer, "bos_id", None), tokenizer.eos_id
        self.begin = begin if end not in (None, begin) else None

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        for inputs, labels in self.loader:
            yield inputs, labels if self.begin is None else labels.masked_fill(labels == self.begin, IGNORE_INDEX)

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loader.load_state_dict(state_dict)


def open_stream(data: Data) -> datasets.IterableDataset:
    """The stream that a ``data`` section describes: a dataset by name, or local files, read as they are prepared."""
    import datasets

    if data.dataset:
        stream = datasets.load_dataset(
            data.dataset, data.config, split=data.split, revision=data.revision, streaming=True
        )
    else:
        # datasets shares a list among the arguments out to the ranks.
        files = [str(file) for file in local_files(data.path or []).files]
        stream = datasets.IterableDataset.from_generator(_documents, gen_kwargs={"files": files, "data": data})
    stream = stream if data.limit is None else stream.take(data.limit)
    return stream if data.held_out == HeldOut() else _part_of(stream, data)


def _part_of(stream: datasets.IterableDataset, data: Data) -> datasets.IterableDataset:
    """The rows of a stream's part; a stream can hold out nothing but a share."""
    column = data.text_column if data.dataset else TEXT
    rows = stream.filter(partial(_is_in_part, column=column, held_out=data.held_out, part=data.part or "train"))
    if next(iter(rows), None) is None:
        # The loader would look for one forever.
        message = f"the stream has no row of the {data.part or 'train'} part"
        raise DataError(Problem(message, "data.held_out", expected="larger shares, or more data"))
    return rows


def _is_in_part(row: Mapping[str, Any], column: str, held_out: HeldOut, part: str) -> bool:
    return part_by_share(text_hash(_text(row, column)), held_out) == part


def _documents(files: list[str], data: Data) -> Iterator[dict[str, str]]:
    for file in files:
        for _, text in text_rows(Path(file), WHOLE, Counter(), data)[1]:
            yield {TEXT: text}


def check_ranks(state_keys: Iterable[str], ranks: int) -> None:
    """Refuses to resume a stream on another number of data-parallel ranks than saved the ``state_keys``."""
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
