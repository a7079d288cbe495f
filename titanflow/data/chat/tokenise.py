"""Makes prepared rows of conversations: encodes and proves them in parts, then packs them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from titanflow.common.errors import DataError, Problem
from titanflow.config.files.chat_template import TEMPLATE_FILE
from titanflow.config.keys.training import Data
from titanflow.data.chat.encoder import ChatEncoder, ChatRefused, Encoded
from titanflow.data.chat.layout import ChatFormat, Conversation
from titanflow.data.chat.packing import best_fit
from titanflow.data.chat.proof.each_turn import EachTurn, until
from titanflow.data.chat.proof.mask_proof import MaskProof
from titanflow.data.chat.proof.text_proof import TextProof
from titanflow.data.chat.render import ToolArguments, Turns
from titanflow.data.chat.source import decoded
from titanflow.data.chat.unread import row_said, said_in_all, with_what_is_lost
from titanflow.data.dataset_info import DatasetInfo
from titanflow.data.files.file_counts import count_files, totals
from titanflow.data.files.sources import Source, problems_error
from titanflow.data.files.tokenise_text import inference_check
from titanflow.data.held_out.row_hash import chat_hash
from titanflow.data.parts.mapped import column_values, list_lengths, list_values, map_rows
from titanflow.data.parts.work import Work
from titanflow.data.prepared import token_dtype, too_short, write_rows
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer, load_tokenizer
from titanflow.data.tokenizer.turn_ends import TurnEndReader, TurnEnds
from titanflow.runs.contract import CUT
from titanflow.runs.errors import warn

if TYPE_CHECKING:
    from datasets import Dataset

SHOWN = 5
"""Dropped rows of each reason whose places are kept."""
_BATCH = 512
COMPARED = 16
"""Rows of each batch that are encoded again as inference does, for comparison."""
COLUMNS = ("number", "ids", "trained", "ends", "within", "bytes", "reason", "problem", "said")

MALFORMED = "malformed"
REFUSED = "refused_by_template"
UNPROVED = "unproved"
TOO_LONG = "too_long"
NOT_TRAINED = "nothing_trained"

QUOTED = "it quotes special tokens, which stay text here and which AutoTokenizer takes for themselves"
"""Note on a row that inference encodes differently, unless it encodes messages by themselves."""


@dataclass(frozen=True)
class ChatPlan:
    """How conversations become rows of ``seq_len`` tokens, of which the first ``proof_rows`` are proved (None: all).

    ``template`` is the Jinja source; ``turns`` and ``tool_arguments`` are explained at :class:`ChatRenderer`.
    """

    template: str
    template_name: str
    seq_len: int
    turns: Turns = "all"
    proof_rows: int | None = None
    tool_arguments: ToolArguments = "mapping"


def write_chats(
    source: Source,
    data: Data,
    tokenizer: Path,
    plan: ChatPlan,
    fingerprint: str,
    folder: Path,
    work: Work,
    encode: Callable[..., Any] | None = None,
) -> None:
    """Writes conversations with the masks of their trained tokens, packed if ``data.packing`` says so.

    ``encode`` makes the rows of something else than conversations, as pairs, with the columns of :func:`encode_rows`.

    Raises:
        DataError: some conversations can't be trained on and may not be dropped (their first twenty problems), a mask
            fails its proof, or no conversation is left.
    """
    loaded = load_tokenizer(tokenizer)
    lasts = None
    if plan.turns == "each":
        each = EachTurn.of(source, data, work)
        source, lasts = each.source, each.lasts
    options = {"tokenizer": str(tokenizer), "plan": plan, "data": data, "lasts": lasts}
    encoded = map_rows(
        source.rows, encode or encode_rows, options, work, _BATCH, source.key and fingerprint + source.key
    )
    dropped, shown = _dropped(encoded, source, data)
    lengths = list_lengths(encoded)
    kept = lengths > 0
    documents = lengths[kept]
    splits = column_values(encoded, "split")[kept] if "split" in encoded.column_names else None
    # The sides of a pair stand in two rows, beside each other.
    sides = documents if splits is None else np.maximum(splits, documents - splits)
    room = plan.seq_len if splits is None else 2 * plan.seq_len
    packs = best_fit(sides, plan.seq_len) if data.packing else None
    rows = len(packs[1]) - 1 if packs else len(documents)
    places, sizes = source.places(), column_values(encoded, "bytes")
    files = count_files(source, column_values(encoded, "reason"), sizes)
    unread, notes = said_in_all(encoded)
    info = DatasetInfo(
        kind="chat" if splits is None else "pairs",
        name=data.name,
        fingerprint=fingerprint,
        documents=len(documents),
        rows=rows,
        tokens=int(documents.sum()),
        trained_tokens=sum(int(chunk.sum()) for chunk in list_values(encoded, "trained")),
        bytes=int(sizes.sum()),
        dtype=token_dtype(loaded.vocab_size).__name__,
        vocab_size=loaded.vocab_size,
        pad_id=loaded.pad_id,
        seq_len=plan.seq_len,
        longest=int(sides.max(initial=0)),
        ends_of_turn=_ends_of_turn(encoded, loaded, plan),
        dropped=dropped,
        dropped_rows=shown,
        packing=data.packing,
        fill=round(float(documents.sum()) / max(rows * room, 1), 4),
        proved=int(kept[: plan.proof_rows].sum()),
        template=plan.template_name,
        turns=plan.turns,
        files=files,
        passed_over=source.passed_over,
        part=data.part or "",
        elsewhere=totals(file["elsewhere"] for file in files),
        unread=unread,
        notes=notes,
    )
    if info.documents == 0:
        raise too_short(info, plan.seq_len)
    (folder / TEMPLATE_FILE).write_text(plan.template, encoding="utf-8")
    write_rows(
        *(folder, info, list_values(encoded, "ids"), documents),
        trained=list_values(encoded, "trained"),
        places=places[kept],
        hashes=column_values(encoded, "hash")[kept],
        packs=packs,
        splits=splits,
    )


def encode_rows(
    batch: dict[str, list[Any]],
    numbers: list[int],
    tokenizer: str,
    plan: ChatPlan,
    data: Data,
    lasts: NDArray[np.int64] | None = None,
) -> dict[str, list[Any]]:
    """Encodes a batch of a source's rows; ``lasts`` has the number of each row's last message, -1 for the row's own.

    Returns:
        For each row: its ``number`` in the source, ``ids`` and ``trained`` (empty if it is left out), ``ends`` and
        ``within`` (:class:`TurnEnds`), ``bytes`` of its text, ``hash`` of its content, the ``reason`` if it is left
        out, the ``problem`` (:class:`titanflow.common.errors.Problem`) as JSON, and ``said``
        (:func:`titanflow.data.chat.unread.row_said`).
    """
    encoder, layout = encoder_of(tokenizer, plan), ChatFormat.of(data)
    proofs, ends = (MaskProof(encoder), TextProof(encoder)), TurnEndReader(encoder)
    rows = list(decoded(batch))
    read = [with_what_is_lost(layout.conversation(row), plan.template) for row in rows]
    hashes = [chat_hash(conversation, row) for conversation, row in zip(read, rows, strict=True)]
    if lasts is not None:
        read = [until(conversation, int(lasts[number])) for number, conversation in zip(numbers, read, strict=True)]
    encoded = iter(encoder.encode_batch([conversation for conversation in read if not conversation.problems]))
    columns: dict[str, Any] = {name: [] for name in COLUMNS}
    compared = 0
    for number, conversation in zip(numbers, read, strict=True):
        if conversation.problems:
            outcome = Outcome(MALFORMED, conversation.problems[0])
        else:
            is_proved = plan.proof_rows is None or number < plan.proof_rows
            whole = next(encoded)
            outcome = outcome_of(conversation, whole, plan, data, proofs if is_proved else None)
            if outcome.encoded is not None and isinstance(whole, Encoded):
                outcome = replace(outcome, ends=ends.read(whole))
            if compared < COMPARED and isinstance(whole, Encoded) and not outcome.problem:
                compared += 1
                fault = inference_check(tokenizer).chat_fault(encoder, conversation, whole)
                outcome = Outcome(UNPROVED, fault) if fault else outcome
        append_outcome(columns, number, outcome, conversation, encoder.tokenizer.vocab_size)
        notes = [*outcome.notes, QUOTED] if outcome.encoded and outcome.encoded.quotes else outcome.notes
        columns["said"].append(row_said(conversation, notes, plan.template))
    return {**columns, "hash": np.array(hashes, np.uint64)}


@dataclass(frozen=True)
class Outcome:
    """A row's tokens and the ends of its turns, or why it is left out; ``notes`` on what its text lost or became."""

    reason: str = ""
    problem: Problem | None = None
    encoded: Encoded | None = None
    notes: Sequence[str] = ()
    ends: TurnEnds = field(default_factory=TurnEnds)


def outcome_of(
    conversation: Conversation,
    encoded: Encoded | ChatRefused,
    plan: ChatPlan,
    data: Data,
    proofs: tuple[MaskProof, TextProof] | None,
) -> Outcome:
    if isinstance(encoded, ChatRefused):
        hint = "data.malformed: drop leaves out what the template refuses; chat.template names another one"
        return Outcome(REFUSED, Problem(str(encoded), "messages", hint=hint))
    if proofs is None:
        return _fitted(encoded, plan.seq_len, data.overlong)
    of_mask, of_text = proofs
    if fault := of_mask.fault(conversation, encoded):
        # The mask isn't at fault if the template leaves out what should be trained.
        unwritten = of_text.unwritten(conversation, encoded)
        return Outcome(REFUSED, unwritten) if unwritten else Outcome(UNPROVED, fault)
    fault, notes = of_text.look(conversation, encoded)
    if fault:
        return Outcome(REFUSED, fault)
    fitted = _fitted(encoded, plan.seq_len, data.overlong)
    return replace(fitted, notes=[*notes, *fitted.notes])


def _fitted(encoded: Encoded, seq_len: int, overlong: str) -> Outcome:
    """A conversation shortened to ``seq_len`` tokens, or left out, as ``overlong`` says."""
    count, notes = len(encoded.ids), list[str]()
    if count > seq_len:
        if overlong == "error":
            expected = f"at most training.seq_len={seq_len} tokens"
            return Outcome(TOO_LONG, Problem(f"the conversation has {count} tokens", "data.overlong", "", expected))
        if overlong == "drop":
            return Outcome(TOO_LONG)
        kept = slice(count - seq_len, None) if overlong == "truncate_left" else slice(seq_len)
        encoded, notes = replace(encoded, ids=encoded.ids[kept], trained=encoded.trained[kept]), [CUT]
    # The first token is never predicted.
    encoded = replace(encoded, trained=np.concatenate([[False], encoded.trained[1:]]))
    return Outcome(encoded=encoded, notes=notes) if encoded.trained.any() else Outcome(NOT_TRAINED)


def append_outcome(
    columns: dict[str, Any], number: int, outcome: Outcome, conversation: Conversation, vocab_size: int
) -> None:
    encoded = outcome.encoded
    texts = (message.get("content") or "" for message in conversation.messages)
    columns["number"].append(number)
    columns["ids"].append(np.asarray(encoded.ids if encoded else [], token_dtype(vocab_size)))
    columns["trained"].append(encoded.trained if encoded else np.empty(0, np.bool_))
    columns["ends"].append(np.fromiter(outcome.ends.ends.elements(), np.int64))
    columns["within"].append(np.fromiter(outcome.ends.within.elements(), np.int64))
    columns["bytes"].append(sum(len(text.encode()) for text in texts) if encoded else 0)
    columns["reason"].append(outcome.reason)
    columns["problem"].append(json.dumps(asdict(outcome.problem)) if outcome.problem else "")


def _ends_of_turn(encoded: Dataset, tokenizer: LoadedTokenizer, plan: ChatPlan) -> list[int]:
    """The tokens that end the rows' trained turns, the most frequent first.

    Raises:
        DataError: one of them, or the end of text, also stands within turns: generation could neither stop nor go on.
    """
    found = TurnEnds()
    for chunk in list_values(encoded, "ends"):
        found.ends.update(chunk.tolist())
    for chunk in list_values(encoded, "within"):
        found.within.update(chunk.tolist())
    # Generation stops at the end of text as well, whether it ends turns or not.
    for end in [*found.ambiguous, tokenizer.end_of_text_id]:
        if found.within[end]:
            token = tokenizer.backend.id_to_token(end)
            message = f"{token} ends {found.ends[end]} turns and stands within {found.within[end]} others"
            hint = "a template may end a turn otherwise if more follows; chat.turns: each or last trains no such turn"
            expected = "ends at which generation can stop"
            raise DataError(Problem(message, "chat.template", plan.template_name, expected, hint))
    return found.ordered


def _dropped(encoded: Dataset, source: Source, data: Data) -> tuple[dict[str, int], dict[str, list[str]]]:
    """The number of rows that were left out and the places of the first ones, by reason.

    Raises:
        DataError: a row may not be dropped according to ``data``, or a mask failed its proof.
    """
    counts: Counter[str] = Counter()
    shown: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for number, reason, text in _left_out(encoded):
        problem = Problem.from_json(text, source.origin(number)) if text else None
        is_fatal = reason == UNPROVED or (reason == TOO_LONG and text) or data.malformed == "error"
        if problem and is_fatal:
            problems.append(problem)
            continue
        counts[reason] += 1
        if len(places := shown.setdefault(reason, [])) < SHOWN:
            places.append(str(problem).splitlines()[0] if problem else source.origin(number))
    if problems:
        raise problems_error(problems)
    for reason, count in counts.items():
        warn(f"{data.name}: {count} left out, {reason}: {', '.join(shown[reason])}")
    return dict(counts), shown


def _left_out(encoded: Dataset) -> Iterator[tuple[int, str, str]]:
    import pyarrow.compute as pc

    for table in encoded.select_columns(["number", "reason", "problem"]).with_format("arrow").iter(batch_size=4096):
        for row in table.filter(pc.not_equal(table["reason"], "")).to_pylist():
            yield row["number"], row["reason"], row["problem"]


@lru_cache(maxsize=2)
def encoder_of(tokenizer: str, plan: ChatPlan) -> ChatEncoder:
    return ChatEncoder(load_tokenizer(tokenizer), plan.template, plan.template_name, plan.turns, plan.tool_arguments)
