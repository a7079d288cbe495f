"""`chat.turns: each`: a row of every trained turn, after the history that it is asked with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import CHATML, FORGETFUL, call, turns
from datasets import Dataset
from test_tokenise_chats import Writer, lines, source

from titanflow.common.errors import DataError
from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import Conversation
from titanflow.data.files.sources import Source, SourceFile
from titanflow.data.prepared import PreparedRows
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer

THOUGHTS = turns("One?", "<think>Hm</think>One.", "Two?", "<think>Ho</think>Two.")


@pytest.fixture
def write(tokenizer: LoadedTokenizer, tmp_path: Path) -> Writer:
    return Writer(tokenizer, tmp_path)


def answers(write: Writer, seq_len: int = 64) -> list[str]:
    """What each row trains."""
    rows = PreparedRows.open(write.made, seq_len)
    labels = [rows.document(number)[1] for number in range(len(rows))]
    return [write.tokenizer.backend.decode(one[one >= 0].tolist(), skip_special_tokens=False) for one in labels]


def test_each_turn_follows_its_prompt(write: Writer, tokenizer: LoadedTokenizer) -> None:
    with pytest.raises(DataError, match=r"it changes messages\[1\] when more follows; .*chat\.turns: each"):
        write(source(THOUGHTS), template=FORGETFUL)
    info = write(source(THOUGHTS, turns("Q", "A")), template=FORGETFUL, turns="each")
    assert (info.documents, info.rows, info.proved, info.turns) == (3, 3, 3, "each")
    assert answers(write) == ["<think>Hm</think>One.<|im_end|>", "<think>Ho</think>Two.<|im_end|>", "A<|im_end|>"]
    encoder = ChatEncoder(tokenizer, FORGETFUL)
    for row, asked in zip(write.documents(), (THOUGHTS[:1], THOUGHTS[:3], turns("Q")), strict=True):
        prompt = encoder.prompt(Conversation(asked))
        assert row[: len(prompt)] == prompt
    assert np.load(write.made / "places.npy").tolist() == [[0, 1], [0, 1], [0, 2]]


def test_rows_of_one_conversation_have_its_hash(write: Writer) -> None:
    write(source(THOUGHTS), template=FORGETFUL, turns="each")
    hashes = np.load(write.made / "hashes.npy")
    write(source(THOUGHTS), template=FORGETFUL, turns="last")
    assert set(hashes.tolist()) == set(np.load(write.made / "hashes.npy").tolist())


@pytest.mark.parametrize("processes", [1, 2])
def test_turns_that_are_not_trained_and_rows_that_cannot_be_make_no_more_rows(write: Writer, processes: int) -> None:
    untrained: list[dict[str, Any]] = turns("a", "b", "c", "d", "e", "f")
    untrained[3] = {**untrained[3], "train": False}
    silent = [{**one, "train": False} for one in turns("a", "b")]
    called = [*turns("W?"), call("w"), {"role": "tool", "content": "sun"}, {"role": "assistant", "content": "A"}]
    rows = lines(*({"messages": one} for one in (untrained, silent, called)), "{not JSON")
    info = write(rows, processes, template=CHATML, turns="each", malformed="drop", seq_len=200)
    assert info.documents == 4
    assert info.dropped == {"nothing_trained": 1, "malformed": 1}
    said = answers(write, 200)
    assert said[:2] == ["b<|im_end|>", "f<|im_end|>"]
    assert [('"w"' in one, one == "A<|im_end|>") for one in said[2:]] == [(True, False), (False, True)]
    (file,) = info.files
    assert file["rows"] == file["documents"] + sum(file["dropped"].values()) == 6


def test_a_refused_turn_has_its_conversations_line(write: Writer) -> None:
    shouts = "{% if messages | length > 2 %}{{ raise_exception('too long') }}{% endif %}" + CHATML
    with pytest.raises(DataError, match=r"a\.jsonl:2: messages: template own refuses it: "):
        write(source(turns("a", "b"), turns("a", "b", "c", "d")), template=shouts, turns="each")


def test_rows_without_a_file_keep_their_number(write: Writer) -> None:
    rows = Source(Dataset.from_dict({"messages": [turns("a", "b", "c", "d"), turns("e", "f")]}), [SourceFile("hub")])
    write(rows, turns="each")
    assert np.load(write.made / "places.npy").tolist() == [[0, 1], [0, 1], [0, 2]]
