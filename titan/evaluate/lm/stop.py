"""Ends the generation of a row once its answer is complete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria


class RowsEnd(StoppingCriteria):
    """Ends each row at its first stop sequence.

    lm-eval goes on until all rows of a batch have the same stop sequence, and then cuts each text at its first one.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], start: int) -> None:
        """``start`` is the length of the prompts, padding included."""
        self.tokenizer = tokenizer
        self.stop = [text for text in stop if text]
        self.start = start
        # The model may write a stop sequence in other tokens than the tokenizer: 2 more are looked at.
        lengths = [len(tokenizer.encode(text, add_special_tokens=False)) for text in self.stop]
        self.window = max(lengths, default=0) + 2
        self.ended: list[bool] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """A bool tensor ``[rows]``: which rows have ended."""
        said = input_ids[:, self.start :]
        self.ended = self.ended or [False] * len(said)
        for row, text in enumerate(self._texts(said[:, -self.window :])):
            if not self.ended[row] and self._stops(text):
                # lm-eval decodes the whole row, whose last bytes may decode differently within a part.
                self.ended[row] = self._stops(*self._texts(said[row : row + 1]))
        return torch.tensor(self.ended, device=input_ids.device)

    def _texts(self, tokens: torch.Tensor) -> list[str]:
        return list(self.tokenizer.batch_decode(tokens, skip_special_tokens=True))

    def _stops(self, text: str) -> bool:
        return any(sequence in text for sequence in self.stop)
