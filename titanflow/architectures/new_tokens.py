"""The control tokens that a fine-tuning stage adds to its base's, and the rows of the embedding."""

from __future__ import annotations

from pathlib import Path

from titanflow.architectures.base import TOKENIZER_FILE
from titanflow.runs.contract import StageRun


def new_tokens(run: StageRun) -> list[str]:
    """The control tokens that the stage adds to its base's."""
    return list((run.config.get("tokenizer") or {}).get("new_special_tokens") or [])


def token_rows(rows: int, run: StageRun) -> int:
    """Rows of the embedding of a stage whose base has ``rows``: more only if new tokens need them."""
    return max(rows, tokenizer_size(run) if new_tokens(run) else 0)


def tokenizer_size(run: StageRun) -> int:
    """How many embeddings a stage's tokenizer needs: its highest id plus one; 0 without a tokenizer."""
    return max(vocabulary(run.tokenizer).values(), default=-1) + 1


def vocabulary(folder: Path | None) -> dict[str, int]:
    """Each token of a tokenizer with its id, added ones included; empty if there is none yet."""
    from tokenizers import Tokenizer

    path = folder / TOKENIZER_FILE if folder else None
    if path is None or not path.is_file():
        return {}
    return dict(Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True))
