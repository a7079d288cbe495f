"""The data config of each source of a mixture, and how the mixture mixes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from titanflow.config.keys.training import Mixture, is_divided


def mixture_members(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each source's data config by name, with unset keys taken from ``data``; empty where ``data`` is no mixture."""
    around = {key: value for key, value in data.items() if key not in ("mixture", "name")}
    sources = (data.get("mixture") or {}).get("sources") or {}
    members = {}
    for name, source in sources.items():
        own = {key: value for key, value in source.items() if key not in ("weight", "epochs")}
        member = {**around, "name": name, **own}
        # The section's part means nothing for a source that holds nothing out.
        members[name] = member if is_divided(member) or "part" in own else {**member, "part": None}
    return members


def row_kinds(data: Mapping[str, Any]) -> set[str]:
    """The kinds of rows of a ``data`` section: its own, or those of its sources."""
    return {str(source.get("kind", "text")) for source in mixture_members(data).values() or [data]}


def are_full(data: Mapping[str, Any]) -> bool:
    """Whether all rows of a ``data`` section have as many tokens: those of text have, and packed ones nearly."""
    sources = mixture_members(data).values() or [data]
    return all(source.get("kind", "text") == "text" or source.get("packing") for source in sources)


def packs_rows(data: Mapping[str, Any]) -> bool:
    """Whether several documents share a row of a ``data`` section, or of one of its sources."""
    members = mixture_members(data)
    return any(member.get("packing") for member in members.values()) if members else bool(data.get("packing"))


def mixture_spec(data: Mapping[str, Any]) -> dict[str, Any]:
    """How a mixture mixes: ``strategy``, ``weights``, ``stop``, and of each source the ``weight`` and ``epochs``.

    ``phases`` are there only if it has any.
    """
    from pydantic import TypeAdapter

    mixture = TypeAdapter(Mixture).validate_python(data["mixture"])
    sources = {name: {"weight": source.weight, "epochs": source.epochs} for name, source in mixture.sources.items()}
    spec = {"strategy": mixture.strategy, "weights": mixture.weights, "stop": mixture.stop, "sources": sources}
    phases = [{"until": phase.until, "weights": phase.weights} for phase in mixture.phases]
    return {**spec, "phases": phases} if phases else spec


def phase_ends(phases: Sequence[Mapping[str, Any]], steps: int) -> list[int]:
    """The last step of each phase, of a training of so many steps."""
    return [round(phase["until"] * steps) for phase in phases]


def phases_note(config: Mapping[str, Any]) -> str:
    """A plan's note on the phases of a training's mixture: the steps of each and its shares; empty without phases."""
    mixture = (config.get("data") or {}).get("mixture") or {}
    phases = mixture.get("phases") or []
    if not phases:
        return ""
    starts = [1, *(end + 1 for end in phase_ends(phases, int(config["training"]["steps"])))]
    said = [f"{_shares(one['weights'])} in steps {starts[n]:,}–{starts[n + 1] - 1:,}" for n, one in enumerate(phases)]
    return f"{mixture['weights']} of {', then '.join(said)}"


def _shares(weights: Mapping[str, float]) -> str:
    total = sum(weights.values())
    return " and ".join(f"{name} {weight / total:.0%}" for name, weight in weights.items() if weight)
