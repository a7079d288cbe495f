"""Proves that llama.cpp computes with a GGUF file what the evaluated model computes, before the file is published.

The texts must have the same tokens, a conversation the same prompt, and the next token the same probabilities within
the bounds of the file's format. transformers computes in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from titan.export.parity import TOLERANCE
from titan.gguf.conversations import compare_conversations
from titan.gguf.llama_cpp import LlamaCpp
from titan.gguf.reference import Reference
from titanflow.common.errors import StageFailed
from titanflow.runs.results import GgufFile

LIKELIEST = 1000
"""How many of the next tokens llama.cpp is asked for; the others count as one."""
QUOTED = 200
"""Characters of a text that an error shows."""


@dataclass(frozen=True)
class Bound:
    """What a format may cost.

    ``mean_kl`` is the mean KL divergence in nats. ``tie`` says how much likelier, in nats, the model's choice may be
    than the one that llama.cpp prefers. ``relative`` bounds the error of a log-probability, relative to the largest.
    """

    mean_kl: float
    tie: float
    relative: float = math.inf


BOUNDS = {
    "f32": Bound(1e-6, 1e-3, TOLERANCE),
    "f16": Bound(1e-4, 0.02),
    "bf16": Bound(1e-3, 0.1),
    "q8_0": Bound(1e-2, 0.3),
}
"""At least ten times the mean divergence of right files of tiny random models, whose flat probabilities feel every
weight. f32's are as close as an export's: the mildest mistake that is found, an eps of a hundred times, has a
relative error of 1e-3. In the other formats rounding would hide such a mistake."""


def prove(path: Path, kind: str, reference: Reference) -> GgufFile:
    """Loads a file into llama.cpp and compares it with the evaluated model.

    Raises:
        StageFailed: it doesn't do the same; says where, and what each of the two does.
    """
    with LlamaCpp(path, reference.context) as runtime:
        composed = compare_texts(path.name, runtime, reference)
        conversations = compare_conversations(path.name, runtime, reference.tokenizer)
        figures = compare_scores(path.name, kind, runtime, reference)
        greedy = compare_greedy(path.name, kind, runtime, reference)
    return GgufFile(
        format=kind,
        texts=len(reference.texts),
        composed=composed,
        conversations=conversations,
        greedy_tokens=greedy,
        **figures,
    )


def compare_texts(file: str, runtime: LlamaCpp, reference: Reference) -> int:
    """Compares the tokens of all texts, special tokens both as such and as plain text.

    Returns:
        how many texts had to be brought into NFC first. A tokenizer that does so itself is the only difference that is
        let pass, and the card says so.
    """
    backend = reference.tokenizer.backend_tokenizer
    composed = 0
    for text in reference.texts:
        given = backend.normalizer.normalize_str(text) if backend.normalizer else text
        composed += given != text
        for special in (True, False):
            backend.encode_special_tokens = not special
            expected, found = backend.encode(text).ids, runtime.tokenize(given, special)
            if expected != found:
                raise StageFailed(f"{file}: {_other_tokens(text, expected, found)}")
    backend.encode_special_tokens = False
    return composed


def _other_tokens(text: str, expected: list[int], found: list[int]) -> str:
    pairs = zip([*expected, None], [*found, None], strict=False)
    at = next(place for place, (one, other) in enumerate(pairs) if one != other)
    shown = repr(text[:QUOTED]) + ("…" if len(text) > QUOTED else "")
    return (
        f"llama.cpp makes other tokens of a text than transformers, from the {at + 1}. token on: {shown}\n"
        f"    transformers: {expected[at : at + 8]}\n    llama.cpp: {found[at : at + 8]}"
    )


def compare_scores(file: str, kind: str, runtime: LlamaCpp, reference: Reference) -> dict[str, Any]:
    """Compares the next token's probabilities at each place of the evaluated model's continuations."""
    bound, found_at, agreed, wrong = BOUNDS[kind], [], 0, ""
    for prompt, continuation, scores in zip(reference.prompts, reference.continuations, reference.scores, strict=True):
        for place, expected in enumerate(scores):
            before = [*prompt, *continuation[:place]]
            found = runtime.next_token(before, LIKELIEST)
            found_at.append(diverge(expected, found))
            wanted, chosen = int(expected.argmax()), next(iter(found))
            agreed += wanted == chosen
            if not (gap := expected[wanted] - expected[chosen]) <= bound.tie:
                wrong = wrong or (
                    f"behind {len(before)} tokens llama.cpp chooses token {chosen}, and the evaluated model {wanted}, "
                    f"which it finds likelier by {gap:.2g} nats"
                )
    mean = float(np.mean([one.divergence for one in found_at]))
    relative = max(one.relative for one in found_at)
    # Not `>`: NaN has to fail, too.
    if not mean <= bound.mean_kl:
        wrong = f"the mean KL divergence is {mean:.2g} nats, expected at most {bound.mean_kl:g}; {wrong}".rstrip("; ")
    elif not relative <= bound.relative:
        wrong = f"a log-probability's relative error is {relative:.2g}, expected at most {bound.relative:g}"
    if wrong:
        places = f"at {len(found_at)} places"
        raise StageFailed(f"{file}: llama.cpp doesn't compute what the evaluated model computes {places}: {wrong}")
    return {
        "positions": len(found_at),
        "agreement": agreed / len(found_at),
        "mean_kl": max(0.0, mean),
        "largest_difference": max(one.difference for one in found_at),
    }


class Divergence(NamedTuple):
    """How far llama.cpp is off at one place: the KL divergence in nats, with the tokens beyond the likeliest taken as
    one; the largest difference of a probability; and that of a log-probability, relative to the largest."""

    divergence: float
    difference: float
    relative: float


def diverge(expected: NDArray[np.float64], found: dict[int, float]) -> Divergence:
    """Compares the probabilities of a next token.

    ``expected`` has the log-probabilities of all tokens, ``found`` those of llama.cpp's likeliest.
    """
    ids = np.fromiter(found, int)
    known, other = expected[ids], np.fromiter(found.values(), float)
    divergence = float((np.exp(known) * (known - other)).sum())
    rest, other_rest = 1 - float(np.exp(known).sum()), 1 - float(np.exp(other).sum())
    # Below this a rest is rounding.
    if rest > 1e-6 and len(found) < len(expected):
        divergence += rest * (math.log(rest) - math.log(max(other_rest, 1e-12)))
    difference = float(np.abs(np.exp(known) - np.exp(other)).max())
    return Divergence(divergence, difference, float(np.abs(known - other).max() / np.abs(expected).max()))


def compare_greedy(file: str, kind: str, runtime: LlamaCpp, reference: Reference) -> int:
    """Lets llama.cpp continue each prompt by itself; returns how many tokens were as the evaluated model's.

    The two may part at a near tie alone, and both end at the same token.
    """
    same = 0
    for prompt, continuation, scores in zip(reference.prompts, reference.continuations, reference.scores, strict=True):
        found = runtime.generate(prompt, len(continuation))
        place = parting(continuation, found, reference.stops)
        same += len(continuation) if place is None else place
        if place is None or gap_at(place, continuation, found, scores, reference.stops) <= BOUNDS[kind].tie:
            continue
        said = "ends" if place >= len(found) else f"generates {found[place]}"
        raise StageFailed(
            f"{file}: behind {len(prompt)} tokens and {place} of its own llama.cpp {said}, and the evaluated model "
            f"generates {continuation[place]}" + (" and ends" if continuation[place] in reference.stops else "")
        )
    return same


def parting(continuation: list[int], found: list[int], stops: tuple[int, ...]) -> int | None:
    """The place at which llama.cpp's tokens part from a continuation; None if they end it, or reach a stop, alike.

    llama.cpp may leave out the token at which it ends.
    """
    for place, wanted in enumerate(continuation):
        if wanted in stops:
            ends = found[place:] in ([], [wanted])
            return None if ends else place
        if found[place : place + 1] != [wanted]:
            return place
    return None


def gap_at(
    place: int, continuation: list[int], found: list[int], scores: NDArray[np.float64], stops: tuple[int, ...]
) -> float:
    """How much likelier, in nats, the evaluated model finds its own token than llama.cpp's."""
    if place >= len(found):
        return float(scores[place, continuation[place]] - scores[place, list(stops)].max())
    # Going on behind an end is no tie.
    same = found[place] == continuation[place]
    return math.inf if same else float(scores[place, continuation[place]] - scores[place, found[place]])
