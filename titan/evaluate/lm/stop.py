"""When a generated row has said all that will be kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria


class RowsEnd(StoppingCriteria):
    """Ends each row at its first stop sequence.

    lm-eval ends a batch once all of its rows have said one and the same sequence, and cuts each text at the first of
    any: a row that has one has its answer, whatever it says after that.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], start: int) -> None:
        """``start`` is the length of the prompts, padding included."""
        self.tokenizer = tokenizer
        self.stop = [text for text in stop if text]
        self.start = start
        # A sequence may have been said in other tokens than its own.
        lengths = [len(tokenizer.encode(text, add_special_tokens=False)) for text in self.stop]
        self.window = max(lengths, default=0) + 2
        self.ended: list[bool] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Which rows have ended, as a bool tensor ``[rows]``."""
        said = input_ids[:, self.start :]
        self.ended = self.ended or [False] * len(said)
        for row, text in enumerate(self._texts(said[:, -self.window :])):
            if not self.ended[row] and self._stops(text):
                # In the end the whole is decoded, which may read its last bytes otherwise than a part does.
                self.ended[row] = self._stops(*self._texts(said[row : row + 1]))
        return torch.tensor(self.ended, device=input_ids.device)

    def _texts(self, tokens: torch.Tensor) -> list[str]:
        return list(self.tokenizer.batch_decode(tokens, skip_special_tokens=True))

    def _stops(self, text: str) -> bool:
        return any(sequence in text for sequence in self.stop)
