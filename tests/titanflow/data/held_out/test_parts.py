"""Rows are parted by what they hold: by nothing else, and wherever they stand."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from titanflow.common.errors import DataError
from titanflow.config.keys.training import PARTS, Data, HeldOut
from titanflow.data.chat.source import load_chats, read_rows
from titanflow.data.files.sources import Source
from titanflow.data.files.text_source import load_text
from titanflow.data.held_out.parts import divide, hash_rows, part_by_share, part_of
from titanflow.data.held_out.row_hash import text_hash
from titanflow.data.parts.work import Work

TEXTS = [f"Document {number}." for number in range(400)]
HASHES = np.array([text_hash(text) for text in TEXTS], np.uint64)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    (tmp_path / "scratch").mkdir()
    return Work(1, tmp_path / "scratch")


@pytest.fixture
def texts(tmp_path: Path, work: Work) -> Callable[..., Source]:
    def read(*files: Iterable[str], part: Any = "train", **held_out: float) -> Source:
        names = [tmp_path / f"{number}.jsonl" for number in range(len(files))]
        for name, rows in zip(names, files, strict=True):
            name.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
        data = Data(name="d", path=list(map(str, names)), held_out=HeldOut(**held_out), part=part)
        return part_of(load_text(data, work), data, work)

    return read


def test_a_hash_is_what_it_was_yesterday() -> None:
    expected = [16476032584258269876, 4681665781835383343, 1586911037576592302]
    assert [text_hash(text) for text in ("", "a", "größer")] == expected


def test_shares_are_met_and_parts_share_no_row() -> None:
    parts = divide(HASHES, HeldOut(dev=0.1, test=0.25))
    counts = dict(zip(PARTS, np.bincount(parts, minlength=3).tolist(), strict=True))
    assert 20 < counts["dev"] < 60
    assert 70 < counts["test"] < 130
    assert parts[HASHES.argmin()] == PARTS.index("test")
    assert parts[HASHES.argmax()] == PARTS.index("dev")


def test_a_number_takes_as_many_from_either_end() -> None:
    parts = divide(HASHES, HeldOut(dev=7, test=3))
    order = np.argsort(HASHES)
    assert set(np.flatnonzero(parts == PARTS.index("test"))) == set(order[:3])
    assert set(np.flatnonzero(parts == PARTS.index("dev"))) == set(order[-7:])


@pytest.mark.parametrize("held_out", [HeldOut(dev=0.1), HeldOut(dev=40), HeldOut(dev=0.1, test=11)])
def test_the_size_of_one_part_moves_no_row_of_the_other(held_out: HeldOut) -> None:
    before = divide(HASHES, held_out) == PARTS.index("dev")
    after = divide(HASHES, HeldOut(dev=held_out.dev, test=0.5)) == PARTS.index("dev")
    assert (before == after).all()


@pytest.mark.parametrize("held_out", [{"dev": 0.1, "test": 0.1}, {"dev": 20, "test": 30}])
def test_order_and_files_make_no_difference(texts: Callable[..., Source], held_out: dict[str, Any]) -> None:
    shuffled = random.Random(1).sample(TEXTS, len(TEXTS))
    for part in PARTS:
        one = texts(TEXTS, part=part, **held_out)
        several = texts(shuffled[:150], shuffled[150:151], shuffled[151:], part=part, **held_out)
        assert sorted(one.rows["text"]) == sorted(several.rows["text"])
        assert len(several.rows) + sum(int(rows.sum()) for rows in several.elsewhere.values()) == len(TEXTS)


def test_more_files_move_no_row_where_shares_are_held_out(texts: Callable[..., Source]) -> None:
    few = set(texts(TEXTS[:200], part="dev", dev=0.2).rows["text"])
    many = set(texts(TEXTS[:200], TEXTS[200:], part="dev", dev=0.2).rows["text"])
    assert few == many & set(TEXTS[:200])


def test_equal_rows_share_a_part_and_are_held_out_once(texts: Callable[..., Source]) -> None:
    twice = [*TEXTS, *TEXTS]
    parts = {part: texts(twice, part=part, dev=9, test=0.1) for part in PARTS}
    rows = {part: list(source.rows["text"]) for part, source in parts.items()}
    assert len(rows["dev"]) == 9
    assert len(set(rows["test"])) == len(rows["test"])
    assert len(rows["train"]) == 2 * len(set(rows["train"])) == 2 * (400 - 9 - len(rows["test"]))
    assert parts["dev"].elsewhere["duplicate"].tolist() == [9]
    assert set(rows["dev"]) | set(rows["test"]) | set(rows["train"]) == set(TEXTS)


def test_a_part_knows_where_its_rows_stand(texts: Callable[..., Source]) -> None:
    source = texts(TEXTS[:100], TEXTS[100:], part="dev", dev=20)
    for row, text in enumerate(source.rows["text"]):
        number = int(text.split()[1].rstrip("."))
        file, line = divmod(number, 100) if number < 100 else (1, number - 100)
        assert source.origin(row) == f"{source.files[file].name}:{line + 1}"
        assert source.places()[row].tolist() == [file, line + 1]


def test_a_dataset_knows_where_its_rows_stand(tmp_path: Path, work: Work) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": TEXTS}).save_to_disk(str(tmp_path / "saved"))
    data = Data(name="d", dataset=str(tmp_path / "saved"), held_out=HeldOut(test=5), part="test")
    source = part_of(load_text(data, work), data, work)
    assert [source.origin(row) for row in range(5)] == [
        f"{tmp_path / 'saved'}:row {TEXTS.index(text) + 1}" for text in source.rows["text"]
    ]
    assert source.places()[:, 1].tolist() == [TEXTS.index(text) + 1 for text in source.rows["text"]]


LAYOUTS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "messages": lambda asked, said: {
        "id": asked,
        "messages": [
            {"role": "user", "content": asked, "train": False},
            {"content": said, "role": "assistant"},
        ],
    },
    "sharegpt": lambda asked, said: {
        "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]
    },
    "prompt_completion": lambda asked, said: {"completion": said, "prompt": asked},
}


def test_a_conversation_is_in_the_same_part_in_whatever_layout(tmp_path: Path, work: Work) -> None:
    hashes = []
    for layout, row in LAYOUTS.items():
        path = tmp_path / f"{layout}.jsonl"
        path.write_text("".join(json.dumps(row(f"Q{number}?", "A.")) + "\n" for number in range(5)))
        data = Data(name="d", kind="chat", path=str(path), chat_format=layout)  # type: ignore[arg-type]
        hashes.append(hash_rows(load_chats(data, work).rows, data, work).tolist())
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(set(hashes[0])) == 5


def test_rows_that_are_no_conversations_are_parted_too(tmp_path: Path, work: Work) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"messages": 3}\nnot json\n{"messages": []}\n"half \\ud800"\n')
    data = Data(name="d", kind="chat", path=str(path), held_out=HeldOut(dev=1, test=1))
    parts = [part_of(load_chats(data, work), Data(**{**vars(data), "part": part}), work) for part in PARTS]
    assert sorted(len(part.rows) for part in parts) == [1, 1, 2]
    assert sum(len(list(read_rows(part.rows))) for part in parts) == 4


@pytest.mark.parametrize(
    ("held_out", "expected"),
    [
        (HeldOut(test=401), "data.held_out.test: found 401, and d has 400 different rows"),
        (HeldOut(dev=400), "data.held_out: 400 for dev take all of the 400 different rows of d"),
        (HeldOut(dev=300, test=0.5), "none is left to train on"),
        (HeldOut(dev=1e-9), "data.held_out.dev: found 1e-09, which takes none of d's 400 different rows"),
    ],
)
def test_what_the_rows_do_not_give_is_refused_with_both_numbers(
    texts: Callable[..., Source], held_out: HeldOut, expected: str
) -> None:
    for part in PARTS:
        with pytest.raises(DataError) as raised:
            texts(TEXTS, part=part, **vars(held_out))
        assert expected in str(raised.value)


@pytest.mark.parametrize("held_out", [HeldOut(dev=0.1), HeldOut(test=0.9), HeldOut(dev=0.3, test=0.3)])
def test_a_stream_parts_each_row_as_the_preparation_does(held_out: HeldOut) -> None:
    parts = divide(HASHES, held_out)
    assert [part_by_share(number, held_out) for number in HASHES.tolist()] == [PARTS[part] for part in parts]


def test_the_ends_of_the_range_are_in_a_part() -> None:
    assert part_by_share(0, HeldOut(test=1e-30)) == "test"
    assert part_by_share((1 << 64) - 1, HeldOut(dev=1e-30)) == "dev"
    assert divide(np.array([0, 5, (1 << 64) - 1], np.uint64), HeldOut(dev=1e-30, test=1e-30)).tolist() == [2, 0, 1]
