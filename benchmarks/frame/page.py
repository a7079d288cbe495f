"""docs/performance.md, made of the stored JSON alone, so that a test can make it again."""

from __future__ import annotations

from statistics import median
from typing import Any

from frame.figures import Figure, from_json, median_interval

HEAD = """# Speed and memory

`make bench` measures all of this again and writes this page; `make bench ARGS="sft --pairs 8"` one question. Each
side of a comparison was measured in the same run, in turns, after a warm-up. A ratio says how many times as good this
project is: as fast, or as cheap. It is the median of the pairs' own ratios; behind it stands the interval that holds
the true median with about 95 % (of five pairs it is the lowest and the highest, 94 %). A limit is what the same
machine gave in the same run if nothing else took time, and "of it" is the share that is reached. Every figure is one
of a machine: measure on yours.

"""
COLUMNS = ("figure", "here", "peer", "ratio", "wanted", "verdict", "limit", "of it", "memory, here / peer")


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    questions = results["questions"]
    return HEAD + "\n".join(_question(name, found) for name, found in questions.items())


def _question(name: str, found: dict[str, Any]) -> str:
    about = " ".join(found["about"].split("\n\n")[0].split())
    rest = "\n\n".join(" ".join(part.split()) for part in found["about"].split("\n\n")[1:])
    figures = [from_json(one) for one in found["figures"]]
    parts = [f"## {name.capitalize()}", about, *([rest] if rest else [])]
    if figures:
        lines = [COLUMNS, ("---",) * len(COLUMNS), *(row(one) for one in figures)]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts += ["\n".join(f"- {one.what}: {one.note}" for one in figures if one.note)]
    if found["error"]:
        parts.append(f"Not all of it could be measured: {_last_line(found['error'])}.")
    parts.append(_measured(found))
    return "\n\n".join(part for part in parts if part) + "\n"


def row(figure: Figure) -> tuple[str, ...]:
    """The cells of a figure's row, by :data:`COLUMNS`."""
    ratio = ""
    if figure.ratios:
        low, high, _ = median_interval(figure.ratios)
        ratio = f"{median(figure.ratios):.2f} ({low:.2f} to {high:.2f})"
    return (
        figure.what,
        f"{number(median(figure.ours))} {figure.unit}" if figure.ours else figure.not_run,
        f"{number(median(figure.theirs))} ({figure.peer})" if figure.theirs else "",
        ratio,
        str(figure.wanted) if figure.wanted else "",
        figure.verdict,
        f"{number(figure.limit.value)} ({figure.limit.what})" if figure.limit else "",
        f"{figure.share:.0%}" if figure.share is not None else "",
        " / ".join(f"{one:,.0f} MB" for one in figure.memory),
    )


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _measured(found: dict[str, Any]) -> str:
    at = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in at["versions"].items())
    toy = " At toy size: these figures mean nothing." if found["toy"] else ""
    return (
        f"`{found['command']}`, {found['date']}, {found['seconds'] / 60:.0f} min, commit {at['commit']}: {at['cores']} "
        f"cores of "
        f"{at['processor']} ({', '.join(at['flags'])}), {at['memory_gb']} GB, GPU: {at['gpu']}, {at['system']}, "
        f"Python {at['python']}, {versions}.{toy}"
    )


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1].rstrip(".") if text.strip() else "it ended"
