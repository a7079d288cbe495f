"""Faults of torchtitan 0.2.2 in labels and validation: by the number of the pull request that mended them.

Each test fails where this project has the fault.
"""

import json
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_exports import write_byte_tokenizer
from tiny_stages import MODEL, SEQ_LEN, write_chat_rows
from torch import nn
from torchtitan.components.tokenizer import HuggingFaceTokenizer
from torchtitan.config import JobConfig
from torchtitan.protocols.train_spec import get_train_spec

from titan.train.job_config import build_job_config
from titan.train.train_spec import stage_train_spec
from titan.train.validate import StageValidator
from titanflow.config.keys.training import Data
from titanflow.data.files.sources import Source, SourceFile
from titanflow.data.files.tokenise_text import write_text
from titanflow.data.parts.work import Work
from titanflow.data.prepared import IGNORE_INDEX, PreparedRows, Row
from titanflow.data.tokenizer.tokenizer import load_tokenizer
from titanflow.runs.contract import StageRun

BEGIN = "<|im_start|>"
END = 0
"""The end of text."""
TEXTS = [f"{'the quick brown fox '[: 3 + n % 11]}{n}" for n in range(40)]


def test_4075_no_document_of_a_packed_row_is_trained_to_begin_the_next(tmp_path: Path) -> None:
    rows = PreparedRows.open(write_chat_rows(tmp_path / "packed", 60, seed=2, packed=True), SEQ_LEN)
    borders = 0
    for tokens, labels, positions, *_ in map(rows.row, range(len(rows))):
        assert positions is not None
        starts = np.flatnonzero(positions == 0)[1:]
        borders += len(starts)
        assert (labels[starts - 1] == IGNORE_INDEX).all()
        trained = np.flatnonzero(labels != IGNORE_INDEX)
        assert np.array_equal(labels[trained], tokens[trained + 1])
    assert borders > len(rows)


def test_4075_text_is_trained_as_documents_that_are_each_shifted_within_themselves(tmp_path: Path) -> None:
    """A document ends with the end of text, which also begins each, as evaluation begins what it scores."""
    tokenizer = load_tokenizer(write_byte_tokenizer(tmp_path / "tokenizer"))
    texts = Source(Dataset.from_dict({"text": TEXTS}), [SourceFile("texts")])
    write_text(texts, Data(name="texts"), tokenizer.folder, "f", tmp_path, Work(1, tmp_path))
    rows = PreparedRows.open(tmp_path, 16)
    documents = [[tokenizer.end_of_text_id, *tokenizer.encode(text)] for text in TEXTS]
    # The first has nothing before it.
    inputs = [token for document in documents for token in document][1:]
    labels = [token for document in documents for token in [*document[1:], tokenizer.end_of_text_id]][1:]

    for column, expected in enumerate((inputs, labels)):
        found = [int(token) for index in range(len(rows)) for token in rows.row(index)[column]]
        assert found == expected[: len(found)]
        assert len(found) > len(expected) - 17


def streaming(tmp_path: Path, begin: str | None) -> tuple[StageRun, HuggingFaceTokenizer]:
    """A stage that streams the texts, and its tokenizer, which begins each with ``begin``."""
    path, folder = tmp_path / "texts.jsonl", write_byte_tokenizer(tmp_path / "tokenizer")
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "bos_token": begin}))
    data = {"path": str(path), "streaming": True}
    config: dict[str, Any] = {"model": {"name": "llama3", "flavor": "debugmodel"}, "data": data}
    config |= {"validation_data": data, "training": {"seq_len": 16, "local_batch_size": 1}}
    run = StageRun(stage="pretrain", experiment="e", run="r", folder=tmp_path, config=config, tokenizer=folder)
    return run, HuggingFaceTokenizer(str(folder))


def spec_of(run: StageRun) -> Any:
    return stage_train_spec(get_train_spec("llama3"), run, build_job_config(run), MODEL)


@pytest.mark.parametrize("begin", [BEGIN, "<|endoftext|>", None])
def test_4075_no_streamed_document_is_trained_to_begin_the_next(tmp_path: Path, begin: str | None) -> None:
    run, tokenizer = streaming(tmp_path, begin)
    loader = spec_of(run).build_dataloader_fn(1, 0, tokenizer, build_job_config(run))
    batches = list(islice(loader, 30))
    inputs, labels = torch.cat([batch["input"] for batch, _ in batches]), torch.cat([kept for _, kept in batches])
    follow = inputs[:, 1:]
    is_border = torch.zeros_like(follow, dtype=torch.bool) if begin != BEGIN else follow == tokenizer.bos_id

    # Nothing else is left out, the end of each document least of all.
    assert torch.equal(labels[:, :-1], torch.where(is_border, IGNORE_INDEX, follow))
    assert is_border.any() == (begin == BEGIN)
    assert (labels == END).sum() > 20


class Labelled:
    """Two rows, with one label and with nine."""

    def __len__(self) -> int:
        return 2

    def row(self, index: int) -> Any:
        labels = np.full(16, IGNORE_INDEX)
        labels[: (1, 9)[index]] = (2, 10)[index]
        return Row(np.zeros(16, dtype=np.int64), labels)


class OneStage:
    """What a pipeline's rank with all of its stages asks of a schedule: the losses of two microbatches."""

    def eval(self, inputs: torch.Tensor, target: torch.Tensor, losses: list[torch.Tensor], **others: Any) -> None:
        losses += [labelled_loss(inputs, target), torch.zeros(())]


def labelled_loss(predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Losses that are the labels themselves: 2 of one token, and 90 of nine."""
    return labels[labels != IGNORE_INDEX].sum().float()


def parts_of_a_validator(pipeline: bool = False) -> dict[str, Any]:
    dims = {"pp_enabled": pipeline, "cp_enabled": False, "dp_enabled": False, "dp_cp_enabled": False}
    return {
        "parallel_dims": SimpleNamespace(**dims, get_mesh=lambda name: None),
        "loss_fn": labelled_loss,
        "validation_context": nullcontext,
        "maybe_enable_amp": nullcontext(),
        "metrics_processor": None,
        "pp_schedule": OneStage(),
        "pp_has_first_stage": True,
        "pp_has_last_stage": True,
    }


@pytest.mark.parametrize("pipeline", [False, True])
def test_4167_a_validation_is_the_mean_over_its_tokens(pipeline: bool) -> None:
    config = JobConfig()
    config.validation.local_batch_size, config.validation.steps = 1, -1
    parts = parts_of_a_validator(pipeline)
    validator = StageValidator(Labelled(), config, 1, 0, tokenizer=None, **parts)  # type: ignore[arg-type]
    assert validator.mean_loss(nn.Identity()) == (2 + 90) / (1 + 9)


def test_4167_nor_does_a_streams_last_batch_weigh_more(tmp_path: Path) -> None:
    run, tokenizer = streaming(tmp_path, BEGIN)
    run.config |= {"validation": {"enable": True, "seq_len": 16, "local_batch_size": 4, "steps": -1}}
    config = build_job_config(run)
    validator = spec_of(run).build_validator_fn(
        job_config=config, dp_world_size=1, dp_rank=0, tokenizer=tokenizer, **parts_of_a_validator()
    )
    begins = [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in TEXTS]
    stream = torch.tensor([token for document in begins for token in document])
    rows = stream[: len(stream) // 17 * 17].view(-1, 17)
    trained = rows[:, 1:][rows[:, 1:] != tokenizer.bos_id]
    assert len(rows) % 4

    assert validator.mean_loss(nn.Identity()) == pytest.approx(trained.double().mean().item())
