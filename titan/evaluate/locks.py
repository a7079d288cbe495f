"""Compares an export with what training recorded: tokenizer, chat template, generation settings.

A model answers differently under another template, so such a score would belong to no model that was trained. Only
this run's models have a record; other folders are taken as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titan.weights.stage_model import chat_template, end_of_turn
from titanflow.architectures.base import TOKENIZER_FILE, tokenizer_digest
from titanflow.common.errors import DataError, Problem
from titanflow.config.files.chat_template import template_digest, template_of
from titanflow.runs.training import Training

GENERATION_FILE = "generation_config.json"
NO_SETTING = ("transformers_version", "_from_model_config")
"""Keys of a generation config that only record how it was written."""


def check_locked(training: Training, export: Path, digests: Mapping[str, str], name: str) -> None:
    """Refuses an export that reads or ends its texts differently from its training stage.

    What the stage has no record of isn't compared. ``digests`` has the SHA-256 of each of the export's files; ``name``
    is the model's name in the evaluation.
    """
    run = training.run
    tokenizer, recorded = _trained_tokenizer(training)
    problems = []
    if recorded and (found := digests.get(TOKENIZER_FILE, "")) != recorded:
        problems.append(_differs(f"the tokenizer has the SHA-256 {found or 'of no file'}", name, export, recorded))
    template = chat_template(run) or (template_of(tokenizer) if tokenizer else None)
    if template is not None and (own := template_of(export)) != template:
        found = f"has the SHA-256 {template_digest(own)}" if own is not None else "isn't there"
        problems.append(_differs(f"the chat template {found}", name, export, template_digest(template)))
    if tokenizer is not None and not problems:
        problems += _generation_problems(tokenizer, end_of_turn(run), name, export)
    if problems:
        raise DataError(problems)


def _trained_tokenizer(training: Training) -> tuple[Path | None, str]:
    """The folder of the tokenizer that a stage trained with, if unchanged, and its recorded digest."""
    result = training.result
    folder = result.tokenizer if result else training.run.tokenizer
    recorded = result.tokenizer_digest if result else tokenizer_digest(folder)
    return folder if recorded and tokenizer_digest(folder) == recorded else None, recorded


def _generation_problems(tokenizer: Path, turn: tuple[int, ...], name: str, export: Path) -> list[Problem]:
    from titan.export.files import SpecialTokens, make_generation_config

    recorded = _settings(make_generation_config(SpecialTokens.read(tokenizer, turn)).to_diff_dict())
    path = export / GENERATION_FILE
    found = _settings(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    return [
        _differs(f"{GENERATION_FILE} says {key}: {found.get(key)}", name, export, f"{key}: {recorded.get(key)}")
        for key in sorted({*recorded, *found})
        if found.get(key) != recorded.get(key)
    ]


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in NO_SETTING and value is not None}


def _differs(message: str, name: str, export: Path, recorded: str) -> Problem:
    return Problem(
        message,
        key=f"models.{name}",
        origin=str(export),
        expected=f"{recorded}, as training recorded it",
        hint="export the stage's checkpoint again: titanflow export, or remove the folder and run again",
    )
