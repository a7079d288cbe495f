"""The comparison of an export with the model that was trained, in words for the card and the report."""

from __future__ import annotations

from collections.abc import Mapping


def export_check(figures: Mapping[str, float]) -> str:
    """The figures of a training stage's ``parity`` as half a sentence, without those that weren't measured."""
    found = []
    if "relative_error" in figures:
        found.append(f"its logits differ by at most {figures['relative_error']:.2g} of the largest")
    if "argmax_agreement" in figures:
        at = f" of {figures['positions']:,.0f} positions" if "positions" in figures else " of the positions"
        found.append(f"the likeliest token is the same at {_share(figures['argmax_agreement'])}{at}")
    if "greedy_agreement" in figures:
        of = f" of {figures['greedy_tokens']:,.0f}" if "greedy_tokens" in figures else ""
        found.append(f"it generates the same tokens ({_share(figures['greedy_agreement'])}{of})")
    return ", ".join(found)


def _share(share: float) -> str:
    return "all" if share == 1 else f"{share:.1%}"
