"""Rows of pairs: both sides' masks, one prompt for both, packed or not, and what is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import CHATML, source_of, turns

from titanflow.common.errors import DataError
from titanflow.config.keys.training import Data, HeldOut
from titanflow.data.chat.encoder import ChatEncoder, Encoded
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.source import load_chats
from titanflow.data.chat.tokenise import ChatPlan, write_chats
from titanflow.data.dataset_info import DatasetInfo, read_info
from titanflow.data.held_out.parts import part_of
from titanflow.data.pairs.tokenise import encode_pairs, prompt_fault
from titanflow.data.parts.work import Work
from titanflow.data.prepared import IGNORE_INDEX, PreparedRows
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer
from titanflow.runs.contract import CUT

PAIRS = [
    {"prompt": turns("Hi"), "chosen": turns("", "Hello there")[1:], "rejected": turns("", "Go away, please")[1:]},
    {
        "prompt": turns("Count", "From one?", "Yes"),
        "chosen": turns("", "one two")[1:],
        "rejected": turns("", "two")[1:],
    },
    {"prompt": turns("Q"), "chosen": turns("", "A", "B", "C")[1:], "rejected": turns("", "A", "B", "D")[1:]},
]


class Writer:
    """Writes pairs into a new folder each time."""

    def __init__(self, tokenizer: LoadedTokenizer, folder: Path) -> None:
        self.tokenizer = tokenizer
        self.folder = folder
        self.count = 0

    def __call__(self, rows: list[Any], seq_len: int = 64, **options: Any) -> DatasetInfo:
        self.count += 1
        self.made = self.folder / str(self.count)
        self.made.mkdir()
        data, plan = Data(name="c", kind="pairs", **options), ChatPlan(CHATML, "own", seq_len)
        source = source_of([row if isinstance(row, str) else json.dumps(row) for row in rows])
        work = Work(1, self.folder)
        write_chats(source, data, self.tokenizer.folder, plan, "f", self.made, work, encode_pairs)
        return read_info(self.made)


@pytest.fixture
def write(tokenizer: LoadedTokenizer, tmp_path: Path) -> Writer:
    return Writer(tokenizer, tmp_path)


def side(tokenizer: LoadedTokenizer, pair: dict[str, Any], name: str) -> Encoded:
    asked = [{**one, "train": False} if one["role"] == "assistant" else one for one in pair["prompt"]]
    return ChatEncoder(tokenizer, CHATML).encode(Conversation([*asked, *pair[name]]))


def labels_of(encoded: Encoded) -> list[int]:
    following = zip(encoded.ids[1:].tolist(), encoded.trained[1:].tolist(), strict=True)
    return [*(token if is_trained else IGNORE_INDEX for token, is_trained in following), IGNORE_INDEX]


@pytest.mark.parametrize("packing", [None, "best_fit"])
def test_rows_hold_both_sides_of_each_pair_once(write: Writer, tokenizer: LoadedTokenizer, packing: Any) -> None:
    info = write(PAIRS, packing=packing, seq_len=64)
    rows = PreparedRows.open(write.made, 64)
    assert (info.kind, info.documents, info.rows, info.proved, len(rows)) == ("pairs", 3, rows.info.rows, 3, info.rows)
    seen = []
    for row in (rows.row(number) for number in range(len(rows))):
        assert row.pairs is not None
        assert row.sides is not None
        assert row.input_ids.shape == row.labels.shape == (2, 64)
        for half, name in enumerate(("chosen", "rejected")):
            end = 0
            for number, length in zip(row.pairs.tolist(), row.sides[half].tolist(), strict=True):
                start, end = end, end + length
                expected = side(tokenizer, PAIRS[number], name)
                assert row.input_ids[half, start:end].tolist() == expected.ids.tolist()
                assert row.labels[half, start:end].tolist() == labels_of(expected)
                if row.positions is not None:
                    assert row.positions[half, start:end].tolist() == list(range(length))
            assert set(row.labels[half, end:].tolist()) <= {IGNORE_INDEX}
        seen += row.pairs.tolist()
    assert sorted(seen) == [0, 1, 2]
    assert (rows.row(0).positions is None) == (packing is None)
    assert (info.rows == 3) == (packing is None)
    sides = [side(tokenizer, pair, name) for pair in PAIRS for name in ("chosen", "rejected")]
    assert (info.tokens, info.longest) == (sum(len(one.ids) for one in sides), max(len(one.ids) for one in sides))
    assert info.trained_tokens == sum(int(one.trained.sum()) for one in sides)
    assert info.fill == round(info.tokens / (2 * 64 * info.rows), 4)
    assert info.ends_of_turn == [2]


def test_the_prompt_is_the_same_token_for_token_and_never_trained(write: Writer) -> None:
    write(PAIRS)
    rows = PreparedRows.open(write.made, 64)
    for row in (rows.row(number) for number in range(len(rows))):
        chosen, rejected = ((labels != IGNORE_INDEX).argmax() + 1 for labels in row.labels)
        assert chosen == rejected
        assert row.input_ids[0, :chosen].tolist() == row.input_ids[1, :rejected].tolist()


def test_sides_whose_prompts_have_other_tokens_are_refused() -> None:
    def encoded(*ids: int, answer: int) -> Encoded:
        return Encoded(np.array(ids), np.arange(len(ids)) >= answer, [1])

    assert prompt_fault(encoded(1, 2, 3, answer=2), encoded(1, 2, 4, 5, answer=2)) is None
    for other in (encoded(1, 9, 4, answer=2), encoded(1, 2, 3, 4, answer=3)):
        fault = prompt_fault(encoded(1, 2, 3, answer=2), other)
        assert fault is not None
        assert fault.message.startswith("the prompt has other tokens before the two answers, from token ")


def test_a_row_has_room_for_the_longer_side(write: Writer, tokenizer: LoadedTokenizer) -> None:
    longer = max(len(side(tokenizer, PAIRS[0], name).ids) for name in ("chosen", "rejected"))
    shorter = min(len(side(tokenizer, PAIRS[0], name).ids) for name in ("chosen", "rejected"))
    assert shorter < longer
    assert write(PAIRS[:1], seq_len=longer).dropped == {}
    with pytest.raises(DataError, match=r"none of c's pairs can be trained on \(too_long: 1\)"):
        write(PAIRS[:1], seq_len=longer - 1)
    with pytest.raises(DataError, match=rf"a.jsonl:1: data.overlong: the conversation has {longer} tokens"):
        write(PAIRS[:1], seq_len=longer - 1, overlong="error")
    cut = write(PAIRS[:1], seq_len=longer - 1, overlong="truncate_right")
    row = PreparedRows.open(write.made, longer - 1).row(0)
    assert (cut.documents, cut.notes) == (1, {CUT: 1})
    assert row.sides is not None
    assert sorted(row.sides[:, 0].tolist()) == sorted([shorter, longer - 1])


def test_each_reason_is_counted_with_its_place(write: Writer) -> None:
    equal = {"prompt": "Q", "chosen": "A", "rejected": "A"}
    untrained = {"prompt": "Q", "chosen": [{"role": "assistant", "content": "A", "train": False}], "rejected": "B"}
    long = {"prompt": "Q", "chosen": "A", "rejected": "x y z " * 99}
    rows = [PAIRS[0], "not json", equal, untrained, long, PAIRS[1]]
    info = write(rows, malformed="drop")
    assert (info.documents, info.dropped) == (2, {"malformed": 3, "too_long": 1})
    assert [place.split(": ")[0] for place in info.dropped_rows["malformed"]] == [f"a.jsonl:{row}" for row in (2, 3, 4)]
    assert info.dropped_rows["too_long"] == ["a.jsonl:5"]
    assert np.load(write.made / "places.npy").tolist() == [[0, 1], [0, 6]]
    with pytest.raises(DataError) as caught:
        write(rows)
    assert str(caught.value).splitlines()[1:] == [
        *("a.jsonl:2: row: not JSON: Expecting value (column 1)", "    expected: a JSON object a line"),
        *("a.jsonl:3: rejected: both sides are the same", "    expected: two answers"),
        *("a.jsonl:4: chosen: nothing of the chosen side is trained", "    expected: an answer without train: false"),
    ]


def test_the_built_in_source_has_pairs_whose_chosen_answer_is_right(tmp_path: Path) -> None:
    source = load_chats(Data(name="p", kind="pairs", source="stdlib_pairs", part="dev"), Work(1, tmp_path))
    rows = list(source.rows)
    assert len(rows) > 100
    for row in rows:
        (chosen,), (rejected,) = row["chosen"], row["rejected"]
        assert row["prompt"][-1]["role"] == "user"
        assert chosen["content"] != rejected["content"]
        # What it says is of the same kind, and only the fact differs.
        assert chosen["content"].split()[:-1] == rejected["content"].split()[:-1]


def test_pairs_are_held_out_by_what_both_sides_say(tmp_path: Path) -> None:
    as_text = [{"prompt": f"Q{number}", "chosen": "A", "rejected": "B"} for number in range(6)]
    as_lists = [{"chosen": turns(one["prompt"], "A"), "rejected": turns(one["prompt"], "B")} for one in as_text]
    source, work = source_of([json.dumps(row) for row in [*as_text, *as_lists]]), Work(1, tmp_path)
    data = Data(name="p", kind="pairs", held_out=HeldOut(dev=2))
    dev, train = (part_of(source, replace(data, part=part), work) for part in ("dev", None))
    assert (len(dev.rows), len(train.rows)) == (2, 8)
    assert dev.numbers is not None
    assert train.numbers is not None
    assert {number % 6 for number in dev.numbers.tolist()}.isdisjoint(number % 6 for number in train.numbers.tolist())
