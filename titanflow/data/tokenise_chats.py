"""From conversations to prepared rows: encoded and proved in parallel through ``datasets``, then packed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from titanflow.config.additions import Data
from titanflow.data.chat import ChatEncoder, ChatRefused, Encoded
from titanflow.data.chat_format import ChatFormat, Conversation
from titanflow.data.chat_render import Turns
from titanflow.data.chat_source import decoded
from titanflow.data.file_counts import count_files, totals
from titanflow.data.mask_proof import MaskProof
from titanflow.data.packing import best_fit
from titanflow.data.prepared import TEMPLATE_FILE, DatasetInfo, token_dtype, too_short, write_rows
from titanflow.data.row_hash import chat_hash
from titanflow.data.sources import Source, problems_error
from titanflow.data.tokenise import Work, column_values, inference_check, list_lengths, list_values, map_rows
from titanflow.data.tokenizer import load_tokenizer
from titanflow.errors import Problem

if TYPE_CHECKING:
    from datasets import Dataset

SHOWN = 5
"""Dropped rows of each reason whose place is kept."""
_BATCH = 512
# Rows of each batch that are encoded once more, as inference does.
_COMPARED = 16

MALFORMED = "malformed"
REFUSED = "refused_by_template"
UNPROVED = "unproved"
TOO_LONG = "too_long"
NOT_TRAINED = "nothing_trained"


@dataclass(frozen=True)
class ChatPlan:
    """How conversations become rows.

    Attributes:
        template: the Jinja source.
        template_name: what to call it.
        turns: which of the assistant's turns are trained.
        proof_rows: how many rows to prove, from the first; None for all.
        seq_len: tokens of a row.
    """

    template: str
    template_name: str
    seq_len: int
    turns: Turns = "all"
    proof_rows: int | None = None


def write_chats(
    source: Source, data: Data, tokenizer: Path, plan: ChatPlan, fingerprint: str, folder: Path, work: Work
) -> None:
    """Writes conversations with the mask of what is trained, packed where ``data.packing`` says so.

    Raises:
        DataError: conversations that can't be trained on and aren't to be dropped (their first twenty problems), a
            mask that fails its proof, or no conversation that can be trained on.
    """
    loaded = load_tokenizer(tokenizer)
    encoder = ChatEncoder(loaded, plan.template, plan.template_name, plan.turns)
    options = {"tokenizer": str(tokenizer), "plan": plan, "data": data}
    encoded = map_rows(source.rows, encode_rows, options, f"tokenising {data.name}", work, _BATCH)
    dropped, shown = _dropped(encoded, source, data)
    lengths = list_lengths(encoded)
    kept = lengths > 0
    documents = lengths[kept]
    packs = best_fit(documents, plan.seq_len) if data.packing else None
    rows = len(packs[1]) - 1 if packs else len(documents)
    places, sizes = source.places(), column_values(encoded, "bytes")
    files = count_files(source, column_values(encoded, "reason"), sizes)
    info = DatasetInfo(
        kind="chat",
        name=data.name,
        fingerprint=fingerprint,
        documents=len(documents),
        rows=rows,
        tokens=int(documents.sum()),
        trained_tokens=int(sum(int(chunk.sum()) for chunk in list_values(encoded, "trained"))),
        bytes=int(sizes.sum()),
        dtype=token_dtype(loaded.vocab_size).__name__,
        vocab_size=loaded.vocab_size,
        pad_id=loaded.pad_id,
        seq_len=plan.seq_len,
        longest=int(documents.max(initial=0)),
        end_of_turn_id=encoder.end_of_turn_id,
        dropped=dropped,
        dropped_rows=shown,
        packing=data.packing,
        fill=round(float(documents.sum()) / max(rows * plan.seq_len, 1), 4),
        proved=int(kept[: plan.proof_rows].sum()),
        template=plan.template_name,
        turns=plan.turns,
        files=files,
        passed_over=source.passed_over,
        part=data.part or "",
        elsewhere=totals(file["elsewhere"] for file in files),
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
    )


def encode_rows(
    batch: dict[str, list[Any]], numbers: list[int], tokenizer: str, plan: ChatPlan, data: Data
) -> dict[str, list[Any]]:
    """Encodes a batch of a source's rows.

    Returns:
        a row each: ``number`` in the source, ``ids`` and ``trained`` (empty where it is left out), ``bytes`` of its
        text, ``hash`` of what it holds, ``reason`` why it is left out, and ``problem``, a
        :class:`titanflow.errors.Problem` as JSON.
    """
    encoder, layout = _encoder(tokenizer, plan), ChatFormat.of(data)
    proof = MaskProof(encoder)
    rows = list(decoded(batch))
    read = [(number, layout.conversation(row)) for number, row in zip(numbers, rows, strict=True)]
    encoded = iter(encoder.encode_batch([conversation for _, conversation in read if not conversation.problems]))
    columns: dict[str, Any] = {name: [] for name in ("number", "ids", "trained", "bytes", "reason", "problem")}
    compared: list[int] = []
    for number, conversation in read:
        if conversation.problems:
            outcome = Outcome(MALFORMED, conversation.problems[0])
        else:
            proves = proof if plan.proof_rows is None or number < plan.proof_rows else None
            found = next(encoded)
            outcome = _outcome(conversation, found, plan, data, proves)
            if len(compared) < _COMPARED and not isinstance(found, ChatRefused) and not outcome.problem:
                compared.append(number)
                fault = inference_check(tokenizer).chat_fault(encoder, conversation, found)
                outcome = Outcome(UNPROVED, fault) if fault else outcome
        _append(columns, number, outcome, conversation, encoder.tokenizer.vocab_size)
    hashes = [chat_hash(conversation, row) for (_, conversation), row in zip(read, rows, strict=True)]
    return {**columns, "hash": np.array(hashes, np.uint64)}


@dataclass(frozen=True)
class Outcome:
    """What became of a row: its tokens, or the reason why it is left out, with the problem if it is one."""

    reason: str = ""
    problem: Problem | None = None
    encoded: Encoded | None = None


def _outcome(
    conversation: Conversation, encoded: Encoded | ChatRefused, plan: ChatPlan, data: Data, proof: MaskProof | None
) -> Outcome:
    if isinstance(encoded, ChatRefused):
        return Outcome(REFUSED, Problem(str(encoded), "messages"))
    if proof and (fault := proof.fault(conversation, encoded)):
        return Outcome(UNPROVED, fault)
    return _fitted(encoded, plan.seq_len, data.overlong)


def _fitted(encoded: Encoded, seq_len: int, overlong: str) -> Outcome:
    """What is left of a conversation in ``seq_len`` tokens."""
    count = len(encoded.ids)
    if count > seq_len:
        if overlong == "error":
            expected = f"at most training.seq_len={seq_len} tokens"
            return Outcome(TOO_LONG, Problem(f"the conversation has {count} tokens", "data.overlong", "", expected))
        if overlong == "drop":
            return Outcome(TOO_LONG)
        kept = slice(count - seq_len, None) if overlong == "truncate_left" else slice(seq_len)
        encoded = replace(encoded, ids=encoded.ids[kept], trained=encoded.trained[kept])
    # The first token is never predicted.
    encoded = replace(encoded, trained=np.concatenate([[False], encoded.trained[1:]]))
    return Outcome(encoded=encoded) if encoded.trained.any() else Outcome(NOT_TRAINED)


def _append(
    columns: dict[str, Any], number: int, outcome: Outcome, conversation: Conversation, vocab_size: int
) -> None:
    encoded = outcome.encoded
    texts = (message.get("content") or "" for message in conversation.messages)
    columns["number"].append(number)
    columns["ids"].append(np.asarray(encoded.ids if encoded else [], token_dtype(vocab_size)))
    columns["trained"].append(encoded.trained if encoded else np.empty(0, np.bool_))
    columns["bytes"].append(sum(len(text.encode()) for text in texts) if encoded else 0)
    columns["reason"].append(outcome.reason)
    columns["problem"].append(json.dumps(asdict(outcome.problem)) if outcome.problem else "")


def _dropped(encoded: Dataset, source: Source, data: Data) -> tuple[dict[str, int], dict[str, list[str]]]:
    """What was left out, by reason: how often, and where the first of each stand.

    Raises:
        DataError: something was left out that ``data`` doesn't allow to drop, or a mask failed its proof.
    """
    counts: Counter[str] = Counter()
    shown: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for number, reason, text in _left_out(encoded):
        problem = Problem(**{**json.loads(text), "origin": source.origin(number)}) if text else None
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
        print(f"{data.name}: {count} left out, {reason}: {', '.join(shown[reason])}", file=sys.stderr, flush=True)
    return dict(counts), shown


def _left_out(encoded: Dataset) -> Iterator[tuple[int, str, str]]:
    for table in encoded.select_columns(["number", "reason", "problem"]).with_format("arrow").iter(batch_size=4096):
        for row in table.filter(_not_empty(table["reason"])).to_pylist():
            yield row["number"], row["reason"], row["problem"]


def _not_empty(column: Any) -> Any:
    import pyarrow.compute as pc

    return pc.not_equal(column, "")


@lru_cache(maxsize=2)
def _encoder(tokenizer: str, plan: ChatPlan) -> ChatEncoder:
    return ChatEncoder(load_tokenizer(tokenizer), plan.template, plan.template_name, plan.turns)
