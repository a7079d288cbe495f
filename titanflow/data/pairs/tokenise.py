"""Makes prepared rows of pairs: encodes and proves both sides, the chosen one first, and then the shared prompt.

A pair is one document: the chosen side's tokens, and the rejected side's behind them. So a pair is kept, dropped,
counted and packed as a whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from titanflow.common.errors import Problem
from titanflow.config.keys.chat_columns import SIDES
from titanflow.config.keys.training import Data
from titanflow.data.chat.encoder import ChatEncoder, ChatRefused, Encoded
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.mask_proof import MaskProof
from titanflow.data.chat.proof.text_proof import TextProof
from titanflow.data.chat.source import decoded
from titanflow.data.chat.tokenise import (
    COLUMNS,
    COMPARED,
    MALFORMED,
    QUOTED,
    REFUSED,
    UNPROVED,
    ChatPlan,
    Outcome,
    append_outcome,
    encoder_of,
    outcome_of,
)
from titanflow.data.chat.unread import row_said, with_what_is_lost
from titanflow.data.files.tokenise_text import inference_check
from titanflow.data.held_out.row_hash import pair_hash
from titanflow.data.pairs.layout import Pair, PairFormat, shared_length
from titanflow.data.tokenizer.turn_ends import TurnEndReader, TurnEnds

Proofs = tuple[MaskProof, TextProof]


def encode_pairs(
    batch: dict[str, list[Any]], numbers: list[int], tokenizer: str, plan: ChatPlan, data: Data, lasts: None = None
) -> dict[str, list[Any]]:
    """Encodes a batch of a source's rows.

    Returns:
        The columns of :func:`titanflow.data.chat.tokenise.encode_rows`, and ``split``: how many of a pair's tokens are
        its chosen side's.
    """
    encoder, layout = encoder_of(tokenizer, plan), PairFormat.of(data)
    proofs, ends = (MaskProof(encoder), TextProof(encoder)), TurnEndReader(encoder)
    rows = list(decoded(batch))
    pairs = [_with_lost(layout.pair(row), layout, plan.template) for row in rows]
    readable = [side for pair in pairs if not pair.problems for side in pair.sides]
    encoded = iter(encoder.encode_batch(readable))
    columns: dict[str, Any] = {name: [] for name in (*COLUMNS, "split")}
    compared = 0
    for number, pair in zip(numbers, pairs, strict=True):
        split = 0
        if pair.problems:
            outcome = Outcome(MALFORMED, pair.problems[0])
        else:
            is_proved = plan.proof_rows is None or number < plan.proof_rows
            wholes = (next(encoded), next(encoded))
            outcome, split = _outcome(layout, pair, wholes, plan, data, proofs if is_proved else None)
            if outcome.encoded is not None:
                outcome = replace(outcome, ends=_ends(ends, wholes))
            if compared < COMPARED and outcome.encoded is not None:
                compared += 1
                fault = _inference_fault(tokenizer, encoder, pair, wholes)
                outcome = Outcome(UNPROVED, fault) if fault else outcome
        both = Conversation([*pair.chosen.messages, *pair.rejected.messages], unread=pair.unread)
        append_outcome(columns, number, outcome, both, encoder.tokenizer.vocab_size)
        columns["split"].append(split if outcome.encoded else 0)
        notes = [*outcome.notes, QUOTED] if outcome.encoded and outcome.encoded.quotes else outcome.notes
        columns["said"].append(row_said(both, notes, plan.template))
    hashes = [pair_hash(pair, row) for pair, row in zip(pairs, rows, strict=True)]
    return {**columns, "hash": np.array(hashes, np.uint64)}


def _with_lost(pair: Pair, layout: PairFormat, template: str) -> Pair:
    if pair.problems:
        return pair
    lost = [with_what_is_lost(side, template).problems for side in pair.sides]
    named = zip(SIDES, lost, strict=True)
    return replace(pair, problems=[_of_side(layout, name, problem) for name, found in named for problem in found])


def _of_side(layout: PairFormat, name: str, problem: Problem) -> Problem:
    """A problem of one side's messages, by the side's column."""
    if not problem.key.startswith("messages"):
        return problem
    return replace(problem, key=f"{layout.columns[name]}{problem.key.removeprefix('messages')}")


def _outcome(
    layout: PairFormat,
    pair: Pair,
    wholes: tuple[Encoded | ChatRefused, Encoded | ChatRefused],
    plan: ChatPlan,
    data: Data,
    proofs: Proofs | None,
) -> tuple[Outcome, int]:
    """The pair's tokens and its chosen side's number of them, or the first reason of a side to leave it out."""
    sides = []
    for name, conversation, whole in zip(SIDES, pair.sides, wholes, strict=True):
        outcome = outcome_of(conversation, whole, plan, data, proofs)
        if outcome.encoded is None:
            problem = _of_side(layout, name, outcome.problem) if outcome.problem else None
            return replace(outcome, problem=problem), 0
        sides.append(outcome)
    chosen, rejected = (outcome.encoded for outcome in sides)
    assert chosen is not None
    assert rejected is not None
    if fault := prompt_fault(chosen, rejected):
        return Outcome(REFUSED, fault), 0
    ids, trained = np.concatenate([chosen.ids, rejected.ids]), np.concatenate([chosen.trained, rejected.trained])
    both = Encoded(ids, trained, [*chosen.turns, *rejected.turns], chosen.quotes or rejected.quotes)
    notes = list(dict.fromkeys([*sides[0].notes, *sides[1].notes]))
    return Outcome(encoded=both, notes=notes), len(chosen.ids)


def prompt_fault(chosen: Encoded, rejected: Encoded) -> Problem | None:
    """The difference between the sides' tokens before their first trained ones, or None: they must be the same.

    The loss compares how probable two answers to one prompt are.
    """
    prompts = [side.ids[: int(np.argmax(side.trained))].tolist() for side in (chosen, rejected)]
    if prompts[0] == prompts[1]:
        return None
    found = f"the prompt has other tokens before the two answers, from token {shared_length(*prompts)} on"
    hint = "the template renders the shared messages by what follows them; chat.template names another one"
    return Problem(found, "rejected", expected="the same tokens before both answers", hint=hint)


def _ends(reader: TurnEndReader, wholes: tuple[Encoded | ChatRefused, ...]) -> TurnEnds:
    ends = TurnEnds()
    for whole in wholes:
        if isinstance(whole, Encoded):
            read = reader.read(whole)
            ends.ends.update(read.ends)
            ends.within.update(read.within)
    return ends


def _inference_fault(
    tokenizer: str, encoder: ChatEncoder, pair: Pair, wholes: tuple[Encoded | ChatRefused, ...]
) -> Problem | None:
    for conversation, whole in zip(pair.sides, wholes, strict=True):
        if isinstance(whole, Encoded) and (
            fault := inference_check(tokenizer).chat_fault(encoder, conversation, whole)
        ):
            return fault
    return None
