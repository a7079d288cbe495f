"""The data config of each source of a mixture, and how the mixture mixes them."""

from __future__ import annotations

from collections.abc import Mapping
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


def packs_rows(data: Mapping[str, Any]) -> bool:
    """Whether several documents share a row of a ``data`` section, or of one of its sources."""
    members = mixture_members(data)
    return any(member.get("packing") for member in members.values()) if members else bool(data.get("packing"))


def mixture_spec(data: Mapping[str, Any]) -> dict[str, Any]:
    """How a mixture mixes: ``strategy``, ``weights``, ``stop``, and of each source the ``weight`` and ``epochs``."""
    from pydantic import TypeAdapter

    mixture = TypeAdapter(Mixture).validate_python(data["mixture"])
    sources = {name: {"weight": source.weight, "epochs": source.epochs} for name, source in mixture.sources.items()}
    return {"strategy": mixture.strategy, "weights": mixture.weights, "stop": mixture.stop, "sources": sources}
