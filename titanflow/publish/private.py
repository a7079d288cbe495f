"""The secrets that must not be published with a text: a token, or where the user's files lie."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from titanflow.common.credentials import redact
from titanflow.common.errors import Problem
from titanflow.common.files import expanded
from titanflow.config.module import Module
from titanflow.runs.contract import StageRun

UNPUBLISHED = ("folder", "token_block", "sign_key")
"""The settings of a publishing that stay on this machine."""
SHOWN = ("system_instruction", "gen_kwargs")
"""The settings of an evaluation that a card's commands show as written."""


def private_part(text: str) -> str:
    """The kind of secret that a text holds, without quoting it; empty if it holds none."""
    home = str(expanded("~"))
    if redact(text) != text:
        return "a token"
    if len(home) > 1 and re.search(re.escape(home) + r"(/|\b)", text):
        return "the path of your home folder"
    return ""


def private_problems(run: StageRun) -> list[Problem]:
    problems = [
        Problem(f"would publish {what}", f"{run.stage}.{key}", run.origins.get(key, ""), "what everyone may read")
        for key, value in run.config.items()
        if key not in UNPUBLISHED and (what := private_part(_joined(value)))
    ]
    names = {"exp_name": run.experiment, "--run": run.run}
    return problems + [
        Problem(f"the card would publish {what}", key, expected="another name")
        for key, name in names.items()
        if (what := private_part(name))
    ]


def evaluation_secrets(module: Module) -> list[Problem]:
    """The secrets that a card would publish from the settings of the evaluation whose scores it shows."""
    models = module.config.get("models")
    texts = {key: str(module.config.get(key) or "") for key in SHOWN}
    texts["models"] = "\n".join(map(str, models)) if isinstance(models, dict) else ""
    return [
        module.problem(key, f"the card would publish {what}", "what everyone may read")
        for key, text in texts.items()
        if (what := private_part(text))
    ]


def data_secrets(modules: Iterable[Module]) -> list[Problem]:
    """The secrets that a card would publish from the names of training data, which it lists."""
    problems = []
    for module in modules:
        for section in ("data", "validation_data") if module.trains else ():
            data = module.config.get(section) or {}
            sources = (data.get("mixture") or {}).get("sources") or {}
            texts = {"name": str(data.get("name") or ""), "mixture.sources": "\n".join(map(str, sources))}
            problems += [
                module.problem(f"{section}.{key}", f"the card would publish {what}", expected="another name")
                for key, text in texts.items()
                if (what := private_part(text))
            ]
    return problems


def _joined(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
