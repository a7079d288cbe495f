"""The prepare stage with rows held out: nothing that is trained on is judged by, and every row is accounted for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from titanflow.common.errors import DataError
from titanflow.data import prepare as stage
from titanflow.data.dataset_info import read_info
from titanflow.data.held_out.row_hash import text_hash
from titanflow.data.mixture import open_rows
from titanflow.data.tokenizer.tokenizer import load_tokenizer
from titanflow.runs.contract import StageRun

pytestmark = pytest.mark.slow

TEXTS = [f"The number {number} is one that comes after {number - 1}.\n" for number in range(120)]
HELD_OUT = {"dev": 10, "test": 0.2}


def chat(number: int) -> dict[str, Any]:
    asked = {"role": "user", "content": f"What comes after {number}?"}
    return {"id": number, "messages": [asked, {"role": "assistant", "content": f"{number + 1}"}]}


@pytest.fixture
def text(write_jsonl: Callable[..., Path]) -> dict[str, Any]:
    half = len(TEXTS) // 2
    files = [
        write_jsonl(f"{number}.jsonl", *({"text": one} for one in texts))
        for number, texts in enumerate((TEXTS[:half], [*TEXTS[half:], "  ", TEXTS[0]]))
    ]
    return {"name": "numbers", "path": [str(file) for file in files], "held_out": HELD_OUT, "part": "train"}


@pytest.fixture
def chats(write_jsonl: Callable[..., Path]) -> dict[str, Any]:
    path = write_jsonl("chats.jsonl", *(chat(number) for number in range(60)))
    return {"name": "chats", "kind": "chat", "path": str(path), "held_out": HELD_OUT, "part": "train"}


def parts_of(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [data, {**data, "part": "dev"}, {**data, "part": "test"}]


def judged(run: StageRun, *positions: int) -> StageRun:
    """The run with these of its datasets as ones that nothing trains on."""
    for position in positions:
        run.config["datasets"][position]["trains"] = False
    return run


def as_items(run: StageRun, position: int) -> StageRun:
    run.config["datasets"][position] |= {"kind": "evals", "chat": None}
    return judged(run, position)


def folders(run: StageRun) -> list[Path]:
    return [Path(dataset["folder"]) for dataset in run.config["datasets"]]


def said(folder: Path, tokenizer: Path) -> list[str]:
    """A prepared folder's documents as text."""
    backend = load_tokenizer(tokenizer).backend
    tokens, offsets = np.load(folder / "tokens.npy"), np.load(folder / "offsets.npy")
    return [backend.decode(tokens[start:end].tolist()) for start, end in itertools.pairwise(offsets)]


def test_each_part_of_a_text_is_rows_of_its_own_and_their_sums_are_the_files(
    prepare_run: Callable[..., StageRun], text: dict[str, Any]
) -> None:
    run = judged(prepare_run(*parts_of(text)), 1, 2)
    stage.prepare(run)
    infos = [read_info(folder) for folder in folders(run)]
    assert [info.part for info in infos] == ["train", "dev", "test"]
    assert [folder.name.rpartition("-")[0] for folder in folders(run)] == ["numbers", "numbers-dev", "numbers-test"]
    documents = [set(said(folder, Path(run.config["tokenizer"]["folder"]))) for folder in folders(run)]
    assert set.union(*documents) == set(TEXTS)
    assert sum(map(len, documents)) == len(TEXTS)
    assert infos[1].documents == 10
    for info in infos:
        assert [file["rows"] for file in info.files] == [60, 62]
        for file in info.files:
            assert file["rows"] == file["documents"] + sum(file["dropped"].values()) + sum(file["elsewhere"].values())
    blank = sum(info.dropped.get("blank", 0) for info in infos)
    assert blank == 1
    # What training has is what is elsewhere of dev, and the other way round.
    assert (
        infos[1].elsewhere["train"]
        == infos[2].elsewhere["train"]
        == infos[0].documents + infos[0].dropped.get("blank", 0)
    )
    assert infos[0].elsewhere["dev"] == infos[1].documents + infos[1].elsewhere.get("duplicate", 0)


def test_the_tokenizer_never_sees_what_is_held_out(
    prepare_run: Callable[..., StageRun], write_jsonl: Callable[..., Path]
) -> None:
    rare = [f"{'qzx' * 9} {number}" for number in range(99)]
    texts = [text if text_hash(text) < 1 << 62 else f"plain {number}" for number, text in enumerate(rare)]
    path = write_jsonl("t.jsonl", *({"text": text} for text in texts))
    assert sum(text.startswith("qzx") for text in texts) > 9
    whole = {"name": "t", "path": str(path)}
    vocabularies = []
    for data in (whole, {**whole, "held_out": {"dev": None, "test": 0.25}, "part": "train"}):
        run = prepare_run(data, vocab_size=290)
        stage.prepare(run)
        vocabularies.append(load_tokenizer(Path(run.config["tokenizer"]["folder"])).backend.get_vocab())
    assert any("qzx" in token for token in vocabularies[0])
    assert not any("qz" in token or "zx" in token for token in vocabularies[1])


def test_chats_and_items_of_one_file_share_no_row(
    prepare_run: Callable[..., StageRun], chats: dict[str, Any], text: dict[str, Any]
) -> None:
    run = as_items(judged(prepare_run(*parts_of(chats), train_on=text, seq_len=96), 1), 2)
    result = stage.prepare(run)
    train, dev, test = folders(run)
    items = [json.loads(line) for line in (test / "items.jsonl").read_text().splitlines()]
    facts = result.datasets[str(test)]
    assert (facts["kind"], facts["part"], facts["items"]) == ("evals", "test", {"items": len(items)})
    assert all(item == chat(item["id"]) for item in items)
    assert facts["elsewhere"] == {"dev": 10, "train": 60 - 10 - len(items)}
    places = [np.load(folder / "places.npy")[:, 1].tolist() for folder in (train, dev, test)]
    assert [item["id"] + 1 for item in items] == places[2]
    assert sorted(place for part in places for place in part) == list(range(1, 61))


def test_items_of_texts_are_their_documents(prepare_run: Callable[..., StageRun], text: dict[str, Any]) -> None:
    run = as_items(prepare_run(*parts_of(text)), 2)
    stage.prepare(run)
    items = [json.loads(line) for line in (folders(run)[2] / "items.jsonl").read_text().splitlines()]
    assert items
    assert all(list(item) == ["text"] and text_hash(item["text"]) < (1 << 64) / 5 for item in items)


@pytest.mark.parametrize("malformed", ["error", "drop"])
def test_items_are_held_to_what_training_asks_of_a_row(
    prepare_run: Callable[..., StageRun], write_jsonl: Callable[..., Path], text: dict[str, Any], malformed: str
) -> None:
    path = write_jsonl(
        "c.jsonl", *(chat(number) for number in range(30)), *({"messages": [number]} for number in range(30))
    )
    data = {"name": "c", "kind": "chat", "path": str(path), "held_out": {"test": 0.5}, "part": "test"}
    run = as_items(prepare_run({**data, "malformed": malformed}, train_on=text), 0)
    if malformed == "error":
        with pytest.raises(DataError, match=r"c.jsonl:\d+: .*messages"):
            stage.prepare(run)
        assert not folders(run)[0].exists()
    else:
        facts = stage.prepare(run).datasets[str(folders(run)[0])]
        assert facts["dropped"]["malformed"] + facts["items"]["items"] == 60 - facts["elsewhere"]["train"]


def test_an_item_that_utf8_can_not_hold_is_said(
    prepare_run: Callable[..., StageRun], tmp_path: Path, text: dict[str, Any]
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"note": "\ud83d", **chat(number)}) + "\n" for number in range(30)))
    data = {"name": "c", "kind": "chat", "path": str(path), "held_out": {"test": 0.5}, "part": "test"}
    with pytest.raises(DataError, match=r"c.jsonl:\d+: column 'note': half a character"):
        stage.prepare(as_items(prepare_run(data, train_on=text), 0))


def test_members_of_a_mixture_hold_rows_out_each(
    prepare_run: Callable[..., StageRun], text: dict[str, Any], write_jsonl: Callable[..., Path]
) -> None:
    from titanflow.data.mixture import write_mixture

    other = {"name": "other", "path": str(write_jsonl("o.jsonl", *({"text": f"Another {one}"} for one in range(99))))}
    run = judged(prepare_run(text, {**text, "part": "dev"}, other), 1)
    stage.prepare(run)
    mixed = Path(run.config["workspace"]) / "mixed"
    mixed.mkdir()
    spec = {"strategy": "concat", "weights": "rows", "stop": "first_exhausted"}
    spec["sources"] = {name: {"weight": 1.0, "epochs": 1.0} for name in ("a", "b")}
    write_mixture(mixed, "mixed", "", spec, {"a": folders(run)[0], "b": folders(run)[2]})
    rows = open_rows(mixed, 32)
    backend = load_tokenizer(Path(run.config["tokenizer"]["folder"])).backend
    read = "".join(backend.decode(rows.row(row).input_ids.tolist()) for row in range(len(rows)))
    dev = said(folders(run)[1], Path(run.config["tokenizer"]["folder"]))
    assert not [one for one in dev if one in read]


def test_rows_of_another_file_that_are_trained_on_are_refused(
    prepare_run: Callable[..., StageRun], text: dict[str, Any], write_jsonl: Callable[..., Path]
) -> None:
    trained = {"name": "trained", "path": text["path"]}
    path = write_jsonl(
        "mine.jsonl", {"text": "Something else, and of some length."}, {"text": TEXTS[7]}, {"text": TEXTS[70]}
    )
    mine = {"name": "mine", "path": str(path)}
    run = judged(prepare_run(trained, mine), 1)
    with pytest.raises(DataError) as raised:
        stage.prepare(run)
    message = str(raised.value)
    assert "mine.jsonl:2: data: 2 of the 3 rows of mine-" in message
    assert f"this row equals {text['path'][0]}:8" in message
    assert not any(folder.exists() for folder in folders(run))


def test_rows_that_others_prepared_are_compared_as_well(
    prepare_run: Callable[..., StageRun], text: dict[str, Any], write_jsonl: Callable[..., Path]
) -> None:
    trained = {"name": "trained", "path": text["path"]}
    mine = {
        "name": "mine",
        "path": str(write_jsonl("mine.jsonl", {"text": TEXTS[7]}, {"text": "A few more words. " * 9})),
    }
    for data in (trained, mine):
        stage.prepare(prepare_run(data, train_on=trained))
    with pytest.raises(DataError, match="1 of the 2 rows of mine-"):
        stage.prepare(judged(prepare_run(trained, mine), 1))


def test_a_row_in_two_sources_with_the_same_shares_is_in_one_part(
    prepare_run: Callable[..., StageRun], text: dict[str, Any], write_jsonl: Callable[..., Path]
) -> None:
    copy = str(write_jsonl("copy.jsonl", *({"text": one} for one in TEXTS[::2]), {"text": "More."}))
    shares = {"held_out": {"dev": 0.2}, "part": "train"}
    first, second = {**text, **shares}, {"name": "copy", "path": copy, **shares}
    run = judged(prepare_run(first, second, {**first, "part": "dev"}, {**second, "part": "dev"}), 2, 3)
    stage.prepare(run)
    otherwise = {**second, "held_out": {"dev": 0.05}}
    with pytest.raises(DataError, match="are trained on, in copy"):
        stage.prepare(judged(prepare_run(first, otherwise, {**first, "part": "dev"}), 2))


def test_what_is_kept_as_soon_as_it_is_done_is_compared_before(
    prepare_run: Callable[..., StageRun],
    text: dict[str, Any],
    write_jsonl: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "_TAKES_LONG", 0)
    path = write_jsonl("mine.jsonl", {"text": TEXTS[7]}, {"text": "A few more words. " * 9})
    run = judged(prepare_run({"name": "trained", "path": text["path"]}, {"name": "mine", "path": str(path)}), 1)
    with pytest.raises(DataError, match="1 of the 2 rows of mine-"):
        stage.prepare(run)
    assert [folder.exists() for folder in folders(run)] == [True, False]
