from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import CHATML, FORGETFUL, UNMARKED, call, source_of, turns
from datasets import Dataset

from titanflow.common.digests import folder_digests
from titanflow.common.errors import DataError
from titanflow.config.keys.training import Data
from titanflow.data.chat.encoder import ChatEncoder, Encoded
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.tokenise import ChatPlan, write_chats
from titanflow.data.dataset_info import DatasetInfo, read_info
from titanflow.data.files.sources import Source, SourceFile
from titanflow.data.parts.work import Work
from titanflow.data.prepared import PreparedRows
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer
from titanflow.runs.contract import CUT

pytestmark = pytest.mark.slow

CHATS = [turns("Hi", "Hello there"), turns("Count", "one two three four five six seven"), turns("Q", "A", "B", "C")]


def lines(*rows: Any) -> Source:
    return source_of([row if isinstance(row, str) else json.dumps(row) for row in rows])


def source(*chats: Any) -> Source:
    return lines(*({"messages": messages} for messages in chats))


class Writer:
    """Writes conversations into a new folder each time."""

    def __init__(self, tokenizer: LoadedTokenizer, folder: Path) -> None:
        self.tokenizer = tokenizer
        self.folder = folder
        self.count = 0

    def __call__(self, rows: Source, processes: int | None = 1, **options: Any) -> DatasetInfo:
        plan = {key: options.pop(key) for key in ("turns", "proof_rows") if key in options}
        template, seq_len = options.pop("template", CHATML), options.pop("seq_len", 64)
        self.count += 1
        self.made = self.folder / str(self.count)
        self.made.mkdir()
        data = Data(name="c", kind="chat", **options)
        work = Work(processes, self.folder)
        write_chats(rows, data, self.tokenizer.folder, ChatPlan(template, "own", seq_len, **plan), "f", self.made, work)
        return read_info(self.made)

    def documents(self) -> list[list[int]]:
        """The tokens of each document that was written last."""
        tokens, offsets = np.load(self.made / "tokens.npy"), np.load(self.made / "offsets.npy")
        return [tokens[start:end].tolist() for start, end in itertools.pairwise(offsets)]


@pytest.fixture
def write(tokenizer: LoadedTokenizer, tmp_path: Path) -> Writer:
    return Writer(tokenizer, tmp_path)


def encoded(tokenizer: LoadedTokenizer, *chats: Any) -> list[Encoded]:
    return [ChatEncoder(tokenizer, CHATML).encode(Conversation(messages)) for messages in chats]


def test_rows_are_the_conversations_and_labels_say_the_answers(write: Writer, tokenizer: LoadedTokenizer) -> None:
    info = write(source(*CHATS))
    assert write.documents() == [one.ids.tolist() for one in encoded(tokenizer, *CHATS)]
    rows = PreparedRows.open(write.made, 64)
    total = 0
    for index, chat in enumerate(CHATS):
        labels = rows.row(index).labels
        answers = [int(label) for label in labels if label >= 0]
        expected = "".join(message["content"] + "<|im_end|>" for message in chat if message["role"] == "assistant")
        assert tokenizer.backend.decode(answers, skip_special_tokens=False) == expected
        total += len(answers)
    assert info.trained_tokens == total
    assert info.bytes == sum(len(message["content"]) for chat in CHATS for message in chat)
    assert (info.documents, info.rows, info.proved, info.dropped, info.ends_of_turn) == (3, 3, 3, {}, [2])
    assert np.load(write.made / "places.npy").tolist() == [[0, 1], [0, 2], [0, 3]]
    assert (write.made / "chat_template.jinja").read_text() == CHATML
    counts = {"rows": 3, "documents": 3, "bytes": info.bytes, "dropped": {}, "elsewhere": {}}
    assert info.files == [{"name": "a.jsonl", "unit": "line", **counts}]


def test_a_conversation_as_long_as_a_row_is_kept_and_a_longer_one_dropped(
    write: Writer, tokenizer: LoadedTokenizer
) -> None:
    longest = max(len(one.ids) for one in encoded(tokenizer, *CHATS))
    whole = write(source(*CHATS), seq_len=longest)
    assert (whole.rows, whole.dropped, whole.longest) == (3, {}, longest)
    short = write(source(*CHATS), seq_len=longest - 1)
    assert (short.rows, short.dropped) == (2, {"too_long": 1})
    assert short.dropped_rows == {"too_long": ["a.jsonl:2"]}
    assert np.load(write.made / "places.npy").tolist() == [[0, 1], [0, 3]]


def test_each_reason_is_counted_with_its_places(write: Writer, capfd: pytest.CaptureFixture[str]) -> None:
    rows = lines(
        {"messages": CHATS[0]},
        "not json",
        {"messages": turns("Q")},
        {"messages": turns("Q", "x" * 300)},
        {"messages": [*turns("Q"), {"role": "assistant", "content": "A", "train": False}]},
        {"messages": turns("One?", "<think>Hm</think>One.", "Two?", "Two.")},
        {"messages": CHATS[1]},
    )
    info = write(rows, malformed="drop", template=FORGETFUL)
    assert info.documents == 2
    assert info.dropped == {"malformed": 2, "too_long": 1, "nothing_trained": 1, "refused_by_template": 1}
    places = {reason: [where.split(": ")[0] for where in shown] for reason, shown in info.dropped_rows.items()}
    assert places == {
        "malformed": ["a.jsonl:2", "a.jsonl:3"],
        "too_long": ["a.jsonl:4"],
        "nothing_trained": ["a.jsonl:5"],
        "refused_by_template": ["a.jsonl:6"],
    }
    assert np.load(write.made / "places.npy").tolist() == [[0, 1], [0, 7]]
    counts = {"rows": 7, "documents": 2, "bytes": info.bytes, "dropped": info.dropped, "elsewhere": {}}
    assert info.files == [{"name": "a.jsonl", "unit": "line", **counts}]
    assert "c: 2 left out, malformed: a.jsonl:2: row: not JSON" in capfd.readouterr().err


def test_all_that_is_wrong_is_reported_together_and_capped(write: Writer) -> None:
    bad = [turns("Q")] * 23
    forgetful = turns("One?", "<think>Hm</think>One.", "Two?", "Two.")
    with pytest.raises(DataError) as caught:
        write(source(CHATS[0], *bad, forgetful, turns("Q", "x" * 300)), template=FORGETFUL)
    assert [problem.origin for problem in caught.value.problems] == [f"a.jsonl:{row}" for row in range(2, 22)]
    assert str(caught.value).startswith("24 problems:\na.jsonl:2: ")
    assert str(caught.value).endswith("\n… and 4 more of this kind")
    assert not (write.made / "dataset.json").exists()


def test_a_row_that_the_template_refuses_stops_the_run_with_its_line(write: Writer) -> None:
    with pytest.raises(DataError, match=r"^a\.jsonl:2: messages: template own isn't stable"):
        write(source(CHATS[0], turns("One?", "<think>Hm</think>One.", "Two?", "Two.")), template=FORGETFUL)


def test_an_overlong_row_can_stop_the_run(write: Writer) -> None:
    with pytest.raises(DataError, match=r"^a\.jsonl:2: data\.overlong: .* has \d+ tokens\n.*training\.seq_len=64"):
        write(source(CHATS[0], turns("Q", "x" * 300)), overlong="error", malformed="drop")


@pytest.mark.parametrize("overlong", ["truncate_left", "truncate_right"])
def test_truncating_cuts_that_side_off(write: Writer, tokenizer: LoadedTokenizer, overlong: str) -> None:
    chat = turns("Q", "a b c d e f g h i j k l m n o p.")
    (whole,) = encoded(tokenizer, chat)
    info = write(source(chat), overlong=overlong, seq_len=20)
    assert info.notes[CUT] == 1
    kept = slice(-20, None) if overlong == "truncate_left" else slice(20)
    assert write.documents() == [whole.ids[kept].tolist()]
    # The first token is predicted by nothing, so that it isn't trained although it was before the cut.
    assert np.load(write.made / "trained.npy").tolist() == [False, *whole.trained[kept].tolist()[1:]]
    labels = PreparedRows.open(write.made, 20).row(0).labels
    assert info.trained_tokens == (labels >= 0).sum() > 0
    assert (info.rows, info.dropped, info.longest) == (1, {}, 20)


def test_a_row_whose_answer_was_cut_off_is_left_out(write: Writer) -> None:
    chat = turns("Say a b c d e f g h i j k l m n o p.", "a")
    info = write(source(CHATS[0], chat), overlong="truncate_right", seq_len=20)
    assert (info.documents, info.dropped) == (1, {"nothing_trained": 1})


def test_conversations_none_of_which_fits_are_refused(write: Writer) -> None:
    expected = r"none of c's chats can be trained on \(too_long: 3\)[\s\S]*raise training.seq_len \(it is 5"
    with pytest.raises(DataError, match=expected):
        write(source(*CHATS), seq_len=5)


def many() -> Source:
    chats = [turns(f"Question {number}?", "word " * (number * 7 % 40) + "end.") for number in range(120)]
    return source(*chats, turns("Q"), *chats[:9])


@pytest.mark.parametrize("packing", [None, "best_fit"])
def test_two_processes_give_the_bytes_of_one(write: Writer, packing: Any) -> None:
    write(many(), processes=1, packing=packing, malformed="drop")
    first = folder_digests(write.made)
    write(many(), processes=2, packing=packing, malformed="drop")
    assert folder_digests(write.made) == first


def test_two_processes_find_the_line_of_a_mistake(write: Writer) -> None:
    with pytest.raises(DataError, match=r"^a\.jsonl:121: messages: the conversation has no assistant turn"):
        write(many(), processes=2)


def test_packed_rows_hold_every_conversation_once_with_its_labels(write: Writer) -> None:
    alone = write(many(), malformed="drop")
    single = PreparedRows.open(write.made, 64)
    info = write(many(), malformed="drop", packing="best_fit")
    rows = PreparedRows.open(write.made, 64)
    found = []
    for index in range(len(rows)):
        row = rows.row(index)
        assert row.positions is not None
        starts = [*np.flatnonzero(row.positions == 0).tolist(), 64]
        for start, end in itertools.pairwise(starts):
            found.append((row.input_ids[start:end].tolist(), row.labels[start:end].tolist()))
    expected = [tuple(part.tolist() for part in single.document(number)) for number in range(alone.documents)]
    padding = [one for one in found if one not in expected]
    assert all(set(tokens) == {info.pad_id} and set(labels) == {-100} for tokens, labels in padding)
    assert sorted(one for one in found if one in expected) == sorted(expected)
    assert (info.documents, info.tokens, info.trained_tokens) == (alone.documents, alone.tokens, alone.trained_tokens)
    assert info.rows is not None
    assert alone.rows is not None
    assert info.rows < alone.rows
    assert info.fill == pytest.approx(info.tokens / (info.rows * 64), abs=1e-4)


def test_only_the_first_rows_are_proved_where_so_many_are_asked_for(
    write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    proved: list[str] = []
    monkeypatch.setattr(
        "titanflow.data.chat.tokenise.MaskProof.fault",
        lambda _, conversation, __: proved.append(conversation.messages[0]["content"]),
    )
    assert write(source(*CHATS), proof_rows=2).proved == 2
    assert proved == ["Hi", "Count"]
    assert write(source(*CHATS), proof_rows=0).proved == 0
    assert len(proved) == 2
    assert write(source(*CHATS)).proved == 3


@pytest.mark.parametrize("malformed", ["error", "drop"])
def test_a_mask_that_fails_its_proof_is_never_dropped(
    write: Writer, monkeypatch: pytest.MonkeyPatch, malformed: str
) -> None:
    encode_batch = ChatEncoder.encode_batch

    def all_trained(encoder: ChatEncoder, conversations: list[Conversation]) -> Any:
        found = encode_batch(encoder, conversations)
        return [Encoded(one.ids, np.ones_like(one.trained), one.turns) for one in found if isinstance(one, Encoded)]

    monkeypatch.setattr(ChatEncoder, "encode_batch", all_trained)
    with pytest.raises(DataError, match=r"a\.jsonl:1: messages.*: the mask is wrong"):
        write(source(*CHATS), malformed=malformed)


def test_only_the_last_turn_is_trained_where_that_is_asked_for(write: Writer, tokenizer: LoadedTokenizer) -> None:
    info = write(source(CHATS[2]), turns="last")
    trained = PreparedRows.open(write.made, 64).row(0).labels
    assert tokenizer.backend.decode(trained[trained >= 0].tolist(), skip_special_tokens=False) == "C<|im_end|>"
    assert info.turns == "last"


@pytest.mark.parametrize("template", [CHATML, UNMARKED])
def test_columns_and_lines_give_the_same_rows(write: Writer, template: str) -> None:
    chats = [
        *CHATS,
        [*turns("Sky?"), call("look", at="sky"), {"role": "tool", "content": "blue"}, *turns("x", "y")[1:]],
    ]
    write(source(*chats), template=template)
    first = folder_digests(write.made)
    columns = Dataset.from_dict({"messages": chats})
    write(Source(columns, [SourceFile("a.jsonl", "line")]), template=template)
    assert folder_digests(write.made) == first


def test_what_nothing_reads_and_what_the_template_changes_is_counted(write: Writer) -> None:
    scored = [{**turns("Hi")[0], "score": 3}, {"role": "assistant", "content": " Yo", "mood": "good"}]
    rows = lines(*[{"messages": scored, "id": number} for number in range(700)], {"messages": CHATS[0], "topic": "x"})
    info = write(rows, template=UNMARKED.replace("m.content or ''", "m.content | trim"))
    assert info.unread == {"id": 700, "messages[].mood": 700, "messages[].score": 700, "topic": 1}
    assert info.notes == {"the template trims the assistant's text": 700}
    # A template that asks for a key reads it.
    info = write(rows, template=UNMARKED.replace("m.content or ''", "m.content + (m.mood or '')"))
    assert info.unread == {"id": 700, "messages[].score": 700, "topic": 1}


@pytest.mark.parametrize("turns_trained", ["all", "last"])
def test_a_template_that_leaves_a_message_out_is_refused_with_its_line(write: Writer, turns_trained: str) -> None:
    silent = UNMARKED.replace("for m in messages", "for m in messages if m.role != 'system'")
    rows = source(CHATS[0], turns("Hi", "Yo", system="Be brief."), CHATS[1])
    with pytest.raises(
        DataError, match=r"^a\.jsonl:2: messages\[0\]: template own leaves out the system's message 'Be"
    ):
        write(rows, template=silent, turns=turns_trained)
    info = write(rows, template=silent, turns=turns_trained, malformed="drop")
    assert (info.documents, info.dropped) == (2, {"refused_by_template": 1})
    assert write(rows, template=silent, turns=turns_trained, proof_rows=0).documents == 3


def test_a_row_that_says_it_is_not_trained_is_left_out(write: Writer) -> None:
    info = write(lines({"messages": CHATS[0]}, {"messages": CHATS[1], "weight": 0}))
    assert (info.documents, info.dropped) == (1, {"nothing_trained": 1})
    with pytest.raises(DataError, match=r"\(nothing_trained: 1\)[\s\S]*mark an assistant's turn"):
        write(lines({"messages": CHATS[1], "weight": 0}))
