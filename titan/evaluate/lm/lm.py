"""lm-eval's transformers backend with the same answers for less work, and with its batches spread over all ranks.

Prompts, windows, truncation, stop sequences and the order of batches are lm-eval's. But logits are computed and
normalised only from the first scored position on, and equal inputs once.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import Collator
from lm_eval.models.utils_hf import stop_sequences_criteria
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from titan.evaluate.lm.stop import RowsEnd
from titan.evaluate.ranks import Ranks
from titanflow.common.errors import DataError, Problem

CPU_BATCH_SIZE = 16
"""For ``batch_size: auto`` on a CPU, where lm-eval would try sizes up to 64, which are slower."""
CPU_BATCH_TOKENS = 2048
"""Tokens of a batch on a CPU: the logits of more don't fit into its cache and take twice as long."""

Request = tuple[Any, list[int], list[int]]
"""As in lm-eval: texts, and the tokens of context and continuation."""
Score = tuple[float, bool]
"""A continuation's log-likelihood in nats, and whether greedy decoding would give it."""


class Row(NamedTuple):
    """An input of the model, and the continuations to score at its end."""

    tokens: tuple[int, ...]
    continuations: list[list[int]]


class SharedLM(HFLM):
    """A loaded model under lm-eval; rank 0's has the other ranks compute their share of each batch."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        ranks: Ranks,
        *,
        batch_size: int | str = CPU_BATCH_SIZE,
        prefix_token_id: int | None = None,
        add_bos_token: bool | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            backend="causal",
            batch_size=batch_size,
            prefix_token_id=prefix_token_id,
            add_bos_token=add_bos_token,
        )
        self.ranks = ranks
        self.seed = seed
        self._encoded: dict[str, list[int]] = {}

    @property
    def name(self) -> str:
        return str(self.model.name_or_path)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Score]:
        """As in ``TemplateLM``, but encodes all texts at once, which tokenizers do on all cores."""
        pairs = [request.args for request in requests]
        self._encode([*(context.rstrip() for context, _ in pairs), *(context + answer for context, answer in pairs)])
        scores = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        self._encoded.clear()
        return scores

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text; its windows score each token once."""
        windows: list[Request] = []
        counts = []
        for request in requests:
            (text,) = request.args
            pairs = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            own = [(None, *make_disjoint_window(pair)) for pair in pairs]
            windows += own
            counts.append(len(own))
        scores = iter(self._loglikelihood_tokens(windows))
        return [sum(next(scores)[0] for _ in range(count)) for count in counts]

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Score]:
        found: dict[tuple[int, ...], list[int]] = {}
        for index, (texts, context, continuation) in enumerate(requests):
            if not 0 < len(continuation) <= self.max_length:
                expected = f"1 to {self.max_length}, the model's context"
                raise DataError(Problem(f"a continuation of {len(continuation)} tokens: {texts}", expected=expected))
            tokens = tuple((context + continuation)[-(self.max_length + 1) :][:-1])
            found.setdefault(tokens, []).append(index)
        longest_first = sorted(found, key=lambda tokens: (-len(tokens), tokens))
        rows = [Row(tokens, [requests[index][2] for index in found[tokens]]) for tokens in longest_first]
        scores: list[Score] = [(0.0, False)] * len(requests)
        computed = self.ranks.compute(self.score, list(self._batches(rows)), "Running loglikelihood requests")
        for row, own in zip(rows, (item for batch in computed for item in batch), strict=True):
            for index, score in zip(found[row.tokens], own, strict=True):
                scores[index] = score
        return scores

    def _batches(self, rows: Sequence[Row]) -> Iterable[list[Row]]:
        """Rows of similar length, longest first; on a CPU a batch is limited by its tokens, not its rows."""
        start = 0
        count = size = self._rows_at_once(len(rows[0].tokens)) if rows else 0
        budget = min(size * self.max_length, CPU_BATCH_TOKENS)
        while start < len(rows):
            if self.device.type == "cpu":
                count = max(1, budget // len(rows[start].tokens))
            yield list(rows[start : start + count])
            start += count

    def _rows_at_once(self, longest: int) -> int:
        if self.batch_size != "auto":
            return int(self.batch_size)
        if self.device.type == "cpu":
            return CPU_BATCH_SIZE
        return int(self._detect_batch_size([(None, [0] * longest, [0])]))

    def score(self, batch: Sequence[Row]) -> list[list[Score]]:
        """Each continuation's log-likelihood, by row."""
        width = max(len(row.tokens) for row in batch)
        first = min(len(row.tokens) - max(map(len, row.continuations)) for row in batch)
        inputs = torch.zeros(len(batch), width, dtype=torch.long)
        places: list[int] = []
        positions: list[int] = []
        targets: list[int] = []
        counts: list[int] = []
        for place, (tokens, continuations) in enumerate(batch):
            inputs[place, : len(tokens)] = torch.tensor(tokens)
            for continuation in continuations:
                places += [place] * len(continuation)
                positions += range(len(tokens) - len(continuation) - first, len(tokens) - first)
                targets += continuation
                counts.append(len(continuation))
        # A causal model doesn't look at padding on the right, so it needs no mask.
        with torch.inference_mode():
            logits = self.model(input_ids=inputs.to(self.device), use_cache=False, logits_to_keep=width - first).logits
            at, chosen = (torch.tensor(places), torch.tensor(positions)), torch.tensor(targets)
            # In the logits' own type, as in lm-eval: bfloat16 rounds each likelihood and, below, their sum.
            normalised = logits.log_softmax(-1)
            likelihoods = normalised[*at, chosen]
            is_greedy = likelihoods == normalised.amax(-1)[at]
            # Greedy decoding takes the first of equal logits. Argmax takes longest, so it runs only where needed.
            best = tuple(index[is_greedy.cpu()] for index in at)
            is_greedy[is_greedy.clone()] = normalised[best].argmax(-1) == chosen[is_greedy.cpu()].to(logits.device)
        parts = zip(likelihoods.cpu().split(counts), is_greedy.cpu().split(counts), strict=True)
        sums = ((float(own.sum()), bool(greedy.all())) for own, greedy in parts)
        return [[next(sums) for _ in row.continuations] for row in batch]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The model's text after each context, in the same batches as ``HFLM``."""
        collator = Collator(
            [request.args for request in requests],
            sort_fn=lambda arguments: (-len(self.tok_encode(arguments[0])), arguments[0]),
            group_by="gen_kwargs",
            group_fn=lambda arguments: arguments[1],
        )
        size = self._rows_at_once(self.max_length)
        batches = list(enumerate(collator.get_batched(n=size)))
        texts = self.ranks.compute(self.generate, batches, "Running generate_until requests")
        return collator.get_original([text for batch in texts for text in batch])

    def generate(self, batch: tuple[int, Sequence[tuple[str, dict[str, Any]]]]) -> list[str]:
        number, arguments = batch
        # So that samples depend on the batch alone, not on the rank that computes it.
        torch.manual_seed(zlib.crc32(f"{self.seed} {number}".encode()))
        configured, self.batch_size_per_gpu = self.batch_size, max(1, len(arguments))
        try:
            return super().generate_until([SimpleNamespace(args=one) for one in arguments], disable_tqdm=True)
        finally:
            self.batch_size_per_gpu = configured

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **generation_kwargs: Any) -> Any:
        """As in ``HFLM``, but each row ends on its own."""
        settings = {"do_sample": False, "temperature": 0.0, **generation_kwargs}
        if not settings["do_sample"]:
            del settings["temperature"]
        rows, start = context.shape
        criteria = stop_sequences_criteria(self.tokenizer, stop, start, rows)
        criteria.append(RowsEnd(self.tokenizer, stop, start))
        return self.model.generate(
            input_ids=context,
            max_length=max_length,
            stopping_criteria=criteria,
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            **settings,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        if add_special_tokens is None and not kwargs and string in self._encoded:
            return self._encoded[string]
        return super().tok_encode(string, add_special_tokens=add_special_tokens, **kwargs)

    def _encode(self, texts: Iterable[str]) -> None:
        """Encodes texts that :meth:`tok_encode` will be asked for, as it would."""
        prefix = self.tokenizer.decode(self.prefix_token_id)
        plain = [text for text in dict.fromkeys(texts) if text and not text.startswith(prefix)]
        if not plain:
            return
        special = {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
        encoded = self.tokenizer(plain, return_attention_mask=False, **special).input_ids
        self._encoded = dict(zip(plain, encoded, strict=True))
