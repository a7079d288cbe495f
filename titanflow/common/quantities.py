"""Counts, times, sizes and sums of money as people read them."""

from __future__ import annotations

import math

GIB = 1 << 30


def short(value: float) -> str:
    """A count in three digits or so: 2.3 M."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def duration(seconds: float) -> str:
    """A time as people say it: 5.2 s, 59 s, 4 min 12 s, 3 h 12 min, 4 d 6 h."""
    if not math.isfinite(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: float) -> str:
    """Bytes: 1.5 GiB, or MiB below a tenth of one."""
    if count < 0.1 * GIB:
        return f"{count / (1 << 20):.0f} MiB"
    return f"{count / GIB:.1f} GiB" if count < 100 * GIB else f"{count / GIB:,.0f} GiB"


def price(cost: float) -> str:
    """A sum in a currency of the user's own; a small one in two digits."""
    return f"{cost:.2g}" if 0 < cost < 0.1 else f"{cost:,.2f}"
