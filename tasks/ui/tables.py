"""Tables beside a stage's results: what a fine-tuning inherits, and which of its tokens are trained."""

from __future__ import annotations

import itertools

from tasks.ui.artifacts import Logger
from tasks.ui.results import Row
from titanflow.config.keys.training import RENDERED_KINDS
from titanflow.config.mixture import row_kinds
from titanflow.runs.contract import StageRun
from titanflow.runs.results import StageResult, TrainResult

Table = tuple[str, list[Row], str]
"""Its name, its rows, and a description."""
MASKED_ROWS = 5
LONGEST_SPAN = 200
"""Characters shown of one part of a conversation."""


def begin_tables(run: StageRun, logger: Logger) -> list[Table]:
    """What can be shown before a stage has begun; a warning replaces what can't be read."""
    try:
        masked = masked_rows(run)
    except Exception as error:
        logger.warning("the masks of %s can't be shown (%s)", run.stage, error)
        return []
    return [("masks", masked, f"What {run.stage} trains: the tokens in ⟦ ⟧")] if masked else []


def finish_tables(result: StageResult) -> list[Table]:
    if not isinstance(result, TrainResult) or not result.inheritance:
        return []
    return [("inheritance", inheritance_rows(result), "What is kept of the base, and what is set otherwise")]


def inheritance_rows(result: TrainResult) -> list[Row]:
    return [
        {"setting": row.key, "how": row.how, "base": row.base, "here": row.here, "from": row.origin}
        for row in result.inheritance
    ]


def masked_rows(run: StageRun, limit: int = MASKED_ROWS) -> list[Row]:
    """The first conversations of a training stage, with trained text in ⟦ ⟧; none if it trains on plain text."""
    is_rendered = row_kinds(run.config.get("data") or {}) & {*RENDERED_KINDS}
    if run.data.train is None or run.tokenizer is None or not is_rendered:
        return []
    from titanflow.data.tokenizer.tokenizer import described_tokenizer
    from titanflow.report.masks import CLOSE, OPEN, Masks

    backend = described_tokenizer(run.tokenizer)
    rows = itertools.islice(Masks(run.data.train, run.tokenizer).rows(), limit)
    marks = {True: f"{OPEN}{{}}{CLOSE}", False: "{}"}
    return [
        {
            "conversation": row.name,
            "tokens": len(row.input_ids),
            "trained": sum(row.trained),
            "text": "".join(marks[is_trained].format(_short(said)) for is_trained, said in row.spans(backend)),
        }
        for row in rows
    ]


def _short(said: str) -> str:
    half = LONGEST_SPAN // 2
    return said if len(said) <= LONGEST_SPAN else f"{said[:half]} … {said[-half:]}"
