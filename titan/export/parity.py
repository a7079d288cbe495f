"""Measures whether an exported model computes what the native one does, before the export is used.

Logits and greedy continuation are compared in fp32. With random initial weights, rounding would hide mistakes of the
conversion (swapped norms, lost RoPE scaling), so the tests scale them first; trained weights are sensitive enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from titanflow.common.errors import StageFailed

TOLERANCE = 1e-4
"""Bound on the relative error. A correct export stays below 3e-5; the mildest mistake tried, a tenfold eps, is 1e-3."""
LEAST_ARGMAX_AGREEMENT = 0.99
"""Below 1 because two logits may tie within rounding."""
POSITIONS = 512
"""Positions compared in each row, where the model has so many."""
GREEDY_TOKENS = 16
ROUTED_TRIES = 3
"""Samples tried for routed layers. If a token's score is within rounding of the threshold, one model may compute it and
the other rightly skip it, which changes all that follows. A wrong export fails with every sample."""


class ParityError(StageFailed):
    """The exported model doesn't compute what the native model does; the message has the figures."""


@dataclass(frozen=True)
class Parity:
    """How close an exported model is to the native one.

    ``relative_error`` is max |exported − native| ÷ max |native| over all logits; ``argmax_agreement`` the share of
    positions where both choose the same token; ``greedy_agreement`` the share of transformers' generated tokens that
    the native model chooses too, or has in a tie; ``changed_tensors`` the names of those that differ by a bit after
    conversion and back; ``tied_alike`` whether the config ties the embeddings as the native model does: where the
    weights differ, transformers 5 silently unties them, and 4 doesn't.
    """

    relative_error: float
    argmax_agreement: float
    greedy_agreement: float
    positions: int
    greedy_tokens: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    changed_tensors: tuple[str, ...] = ()
    tied_alike: bool = True

    def failures(self) -> list[str]:
        found = []
        # Not `>=`: NaN logits have to fail too.
        if not self.relative_error < TOLERANCE:
            found.append(f"the logits' relative error is {self.relative_error:.2g}, expected below {TOLERANCE:g}")
        if self.argmax_agreement < LEAST_ARGMAX_AGREEMENT:
            found.append(
                f"the most likely token agrees at {self.argmax_agreement:.1%} of {self.positions} positions, "
                f"expected {LEAST_ARGMAX_AGREEMENT:.0%}"
            )
        if self.greedy_agreement < 1:
            found.append(f"{self.greedy_agreement:.1%} of {self.greedy_tokens} greedy tokens agree, expected all")
        if self.missing:
            found.append(f"weights missing from the export: {', '.join(self.missing)}")
        if self.unexpected:
            found.append(f"weights that the exported model has no place for: {', '.join(self.unexpected)}")
        if self.changed_tensors:
            found.append(f"weights that differ after the way back: {', '.join(self.changed_tensors[:8])}")
        if not self.tied_alike:
            found.append("tie_word_embeddings in config.json is the opposite of what the model does")
        return found

    def figures(self) -> dict[str, float]:
        return {key: float(value) for key, value in asdict(self).items() if type(value) in (int, float)}


def sample_tokens(vocab_size: int, positions: int, held_out: Any | None = None, seed: int = 0) -> Any:
    """Token ids to compare on, of shape (rows, positions): a random row, which reaches all parts of the
    vocabulary, and one of ``held_out``, 1-D token ids, if there are enough. ``seed`` also shifts where the text begins.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(vocab_size, (positions,), generator=generator)]
    if held_out is not None and len(held_out) >= positions:
        text = torch.as_tensor(held_out[:positions].astype("int64"))
        rows.append(text.roll(-seed * positions // ROUTED_TRIES))
    return torch.stack(rows)


def held_out_tokens(rows: Path | None) -> Any | None:
    """The first token ids of a folder of prepared rows, 1-D, to compare on; None without any."""
    import numpy as np

    from titanflow.data.prepared import TOKENS_FILE, mapped

    if rows is None or not (rows / TOKENS_FILE).is_file():
        return None
    return np.array(mapped(rows, TOKENS_FILE)[:POSITIONS])


def measure(native: Any, exported: Any, misfits: Mapping[str, Any], held_out: Any | None = None) -> Parity:
    """Compares an exported model with the native one, in fp32 on the CPU.

    ``misfits`` has the names of the weights that are ``missing``, ``unexpected`` or changed (``changed_tensors``);
    ``held_out`` a 1-D numpy array of a text's token ids.
    """
    from titan.models.routers import RoutedModel

    tied_alike = exported.config.tie_word_embeddings == (native.output.weight is native.tok_embeddings.weight)
    positions = min(POSITIONS, exported.config.max_position_embeddings)
    for seed in range(ROUTED_TRIES if isinstance(native, RoutedModel) else 1):
        tokens = sample_tokens(native.model_args.vocab_size, positions, held_out, seed)
        parity = Parity(**_compare(native, exported, tokens), **misfits, tied_alike=tied_alike)
        if not parity.failures():
            break
    return parity


def _compare(native: Any, exported: Any, tokens: Any) -> dict[str, Any]:
    """Compares the two models' outputs on the tokens ``[rows, positions]``."""
    import torch

    greedy_tokens = min(GREEDY_TOKENS, exported.config.max_position_embeddings - 1)
    with torch.inference_mode():
        expected, found = native(tokens), exported(tokens).logits
        scale = expected.abs().max()
        prompt = tokens[-1:, : tokens.shape[1] - greedy_tokens]
        return {
            "relative_error": ((found - expected).abs().max() / scale).item(),
            "argmax_agreement": (found.argmax(-1) == expected.argmax(-1)).double().mean().item(),
            "greedy_agreement": _greedy_agreement(native, exported, prompt, greedy_tokens, TOLERANCE * scale),
            "positions": tokens.numel(),
            "greedy_tokens": greedy_tokens,
        }


def _greedy_agreement(native: Any, exported: Any, prompt: Any, count: int, tie: Any) -> float:
    """The share of ``count`` tokens, generated with transformers' cache, that the native model chooses without one."""
    import torch
    from transformers import GenerationConfig

    # No token ends it: a model that begins with `<|endoftext|>` would leave nothing to compare.
    greedy = GenerationConfig(do_sample=False, max_new_tokens=count, pad_token_id=0)
    exported.generation_config.eos_token_id = None
    generated = exported.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=greedy)
    logits = native(generated[:, :-1])[0, prompt.shape[1] - 1 :]
    chosen = logits.gather(1, generated[0, prompt.shape[1] :, None]).squeeze(1)
    return float((logits.max(-1).values - chosen <= tie).double().mean())
