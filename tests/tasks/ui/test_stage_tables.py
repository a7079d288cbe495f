import json
import logging
from pathlib import Path

import pytest
from finished_stage import train_result

from tasks.ui import tables
from tasks.ui.tables import begin_tables, finish_tables, inheritance_rows, masked_rows
from titanflow.report.masks import MaskedRow
from titanflow.runs.contract import PreparedData, StageRun
from titanflow.runs.results import InheritanceRow, PublishResult

TRAINED = train_result(
    Path("/runs/sft"),
    stage="sft",
    inheritance=[
        InheritanceRow(key="optimizer.lr", how="changed", base="0.004", here="0.002", origin="stdlib.yaml:39"),
        InheritanceRow(key="debug.seed", how="kept", base="0", here="0"),
        InheritanceRow(key="model.dim", how="inherited", base="128", here="128", origin="pretrain"),
    ],
)


class Letters:
    """A tokenizer whose tokens are letters."""

    backend = property(lambda self: self)

    def decode(self, tokens, skip_special_tokens):
        assert not skip_special_tokens
        return "".join(map(chr, tokens))


@pytest.fixture
def chats(tmp_path, monkeypatch):
    """A stage that trains on two conversations."""
    said = [ord(letter) for letter in "ab" + "c" * 300]
    rows = [
        MaskedRow("chats:1", [97, 98, 99, 100], [-100, 99, 100, -100]),
        MaskedRow("chats:2", said, [-100] * len(said)),
    ]

    class Opened:
        def __init__(self, folder, tokenizer):
            pass

        def rows(self):
            return iter(rows)

    monkeypatch.setattr("titanflow.report.masks.Masks", Opened)
    monkeypatch.setattr("titanflow.data.tokenizer.tokenizer.described_tokenizer", lambda path: Letters())
    return StageRun(
        stage="sft",
        experiment="tiny",
        run="main",
        folder=tmp_path,
        config={"data": {"kind": "chat"}},
        tokenizer=tmp_path,
        data=PreparedData(train=tmp_path),
    )


def test_the_table_is_the_result_s_in_its_order():
    assert inheritance_rows(TRAINED) == [
        {"setting": "optimizer.lr", "how": "changed", "base": "0.004", "here": "0.002", "from": "stdlib.yaml:39"},
        {"setting": "debug.seed", "how": "kept", "base": "0", "here": "0", "from": ""},
        {"setting": "model.dim", "how": "inherited", "base": "128", "here": "128", "from": "pretrain"},
    ]


def test_only_a_training_with_a_base_has_the_table():
    ((what, _, _),) = finish_tables(TRAINED)
    assert what == "inheritance"
    assert finish_tables(TRAINED.model_copy(update={"inheritance": []})) == []
    assert finish_tables(PublishResult(target="folder", location="here")) == []


def test_what_is_trained_is_marked(chats):
    first, second = masked_rows(chats)
    assert first == {"conversation": "chats:1", "tokens": 4, "trained": 2, "text": "ab⟦cd⟧"}
    assert second["trained"] == 0
    assert second["text"] == f"ab{'c' * 98} … {'c' * 100}"
    assert len(masked_rows(chats, 1)) == 1


@pytest.mark.parametrize("other", [{"config": {"data": {"kind": "text"}}}, {"data": PreparedData()}])
def test_plain_text_has_no_masks(chats, other):
    assert masked_rows(chats.model_copy(update=other)) == []


def test_rows_that_cannot_be_read_cost_no_run(chats, monkeypatch, caplog):
    monkeypatch.setattr(tables, "masked_rows", lambda run: json.loads("torn"))
    assert begin_tables(chats, logging.getLogger("test")) == []
    assert "the masks of sft can't be shown" in caplog.text
