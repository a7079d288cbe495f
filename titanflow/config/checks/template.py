"""Refuses ``chat.template_args`` that the template doesn't read, and templates that write today's date."""

from __future__ import annotations

from typing import Any

from titanflow.common.errors import Problem
from titanflow.config.files.template_args import GIVEN, TODAY, names_of, with_defaults, writes_today
from titanflow.config.module import Module

KEY = "chat.template_args"
_PLAIN = (str, int, float, bool, type(None))


def template_problems(module: Module, template: str, name: str) -> list[Problem]:
    """Mistakes in a fine-tuning module's template arguments; ``template`` is the Jinja source, ``name`` its name."""
    args = module.config["chat"]["template_args"]
    asked = sorted(names_of(template) - {*GIVEN}) if args else []
    expected = ", ".join(asked) or "nothing: it takes only the messages"
    problems = [
        module.problem(f"{KEY}.{arg}", f"template {name} never asks for {arg!r}", expected, "leave it out")
        for arg in args
        if arg not in asked
    ]
    problems += [
        module.problem(f"{KEY}.{arg}", f"found {value!r}", expected="text, a number, true or false, or lists of them")
        for arg, value in args.items()
        if not _is_plain(value)
    ]
    if not isinstance(today := args.get(TODAY, ""), str):
        problems.append(module.problem(f"{KEY}.{TODAY}", f"found {today!r}", expected="the text of a date, in quotes"))
    return problems or _date_problems(module, with_defaults(template, args), name)


def _date_problems(module: Module, template: str, name: str) -> list[Problem]:
    if not writes_today(template):
        return []
    key = "date_string" if "date_string" in names_of(template) else TODAY
    found = f"template {name} writes the date of today, so that each day's prompts would be others"
    hint = f'give one: {KEY}: {{{key}: "26 Jul 2024"}}; the exported template writes it, too'
    return [module.problem("chat.template", found, expected="a date that stays", hint=hint)]


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, _PLAIN)
