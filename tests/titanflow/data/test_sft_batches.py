"""Cases 31 and 32 of fine-tuning: the batches of packed chats, after a resume and on two ranks."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_samples import CHATML, source_of, turns

from titan.train.dataloader import PreparedDataLoader
from titanflow.config.keys.training import Data
from titanflow.data.chat.tokenise import ChatPlan, write_chats
from titanflow.data.parts.work import Work
from titanflow.data.prepared import PreparedRows
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer


@pytest.fixture
def packed(tokenizer: LoadedTokenizer, tmp_path: Path) -> PreparedRows:
    chats = [turns(f"Question {number}?", f"Answer {number}. " * (number % 5 + 1)) for number in range(61)]
    rows, folder = [json.dumps({"messages": messages}) for messages in chats], tmp_path / "rows"
    folder.mkdir()
    data, plan = Data(name="c", kind="chat", packing="best_fit"), ChatPlan(CHATML, "chatml", 128)
    write_chats(source_of(rows), data, tokenizer.folder, plan, "f", folder, Work(1, tmp_path))
    return PreparedRows.open(folder, 128)


def loader(rows: PreparedRows, rank: int = 0, ranks: int = 1, local: int = 2) -> PreparedDataLoader:
    return PreparedDataLoader(rows, local_batch_size=local, global_batch_size=4, rank=rank, ranks=ranks, seed=5)


def equal(one: Any, other: Any) -> bool:
    names = sorted(one[0])
    assert names == sorted(other[0]) == ["input", "positions"]
    return all(torch.equal(one[0][name], other[0][name]) for name in names) and torch.equal(one[1], other[1])


def test_case_31_a_resume_in_the_middle_goes_on_with_the_same_batches(packed: PreparedRows) -> None:
    assert len(packed) < 61
    whole = list(islice(loader(packed), 40))
    first = loader(packed)
    seen = list(islice(first, 14))
    resumed = loader(packed)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    seen += list(islice(resumed, 26))
    assert all(equal(one, other) for one, other in zip(seen, whole, strict=True))


def test_case_32_two_ranks_share_nothing_and_together_have_all(packed: PreparedRows) -> None:
    steps = len(packed) // 4
    parts = [[], []]  # type: list[list[tuple[int, ...]]]
    for rank in range(2):
        for inputs, _ in islice(loader(packed, rank, 2), steps):
            parts[rank] += [tuple(row) for row in inputs["input"].tolist()]
    assert not set(parts[0]) & set(parts[1])
    alone = [tuple(row) for inputs, _ in islice(loader(packed, local=4), steps) for row in inputs["input"].tolist()]
    assert sorted(parts[0] + parts[1]) == sorted(alone)
    everything = {tuple(packed.row(index).input_ids.tolist()) for index in range(len(packed))}
    assert len(set(alone)) == len(alone) == steps * 4
    assert set(alone) <= everything
    assert len(everything - set(alone)) == len(packed) % 4
