"""What the commands of a page are made of: programs, their options, and the keys that they set."""

from __future__ import annotations

import functools
import inspect
import json
import re
import shlex
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from typer.main import get_command

from titanflow.cli.main import app
from titanflow.common.errors import ConfigError
from titanflow.config.experiment import load_experiment
from titanflow.config.overrides import parse_settings

ROOT = Path(__file__).parents[1]
TARGETS = set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
OF_TITANFLOW = ("run", "plan", "report")
"""Targets that are commands of titanflow's, with ARGS."""
ELSEWHERE = (
    *("cd", "git", "python3", "export", "cat", "pip", "sudo", "printf", "curl", "openssl", "model_signing"),
    *("sinfo", "squeue", "kubectl", "prefect", "docker", "transformers", "vllm"),
)
"""Programs that are none of this project's."""
_VARIABLE = re.compile(r"[A-Z_]+=")


def known_command(words: list[str]) -> list[str] | None:
    """The arguments of titanflow that a command gives; None where it runs something else.

    Fails where the program, an option, a target or a key isn't known.
    """
    words = _program(words)
    match words:
        case ["titanflow", *arguments]:
            return _parsed(arguments)
        case ["make", target, *variables]:
            return _make(target, variables)
        case ["docker", "run", *rest] if any(word.startswith("titanflow:") for word in rest):
            at = next(number for number, word in enumerate(rest) if word.startswith("titanflow:"))
            _parsed(rest[at + 1 :])
        case ["prefect", "deployment", "run", name, *arguments]:
            _deployment(name, arguments)
        case [program, *_]:
            assert program in ELSEWHERE, f"{program}: a program that no rule knows"
    return None


def _program(words: list[str]) -> list[str]:
    """The first program of a pipeline or list, without variables before it and files behind it."""
    ends = [number for number, word in enumerate(words) if word in ("|", "&&", ">", "<<END")]
    words = words[: ends[0]] if ends else words
    while words and _VARIABLE.match(words[0]):
        words = words[1:]
    return words


def _parsed(arguments: list[str]) -> list[str]:
    """The arguments, which the command line takes, and whose keys the config reader takes.

    A text may name a command alone (`titanflow verify`), without what the command asks for.
    """
    command = get_command(app)
    if arguments[:1] in (["-h"], ["--help"], ["--version"], ["--install-completion"]):
        return arguments
    context = command.make_context("titanflow", list(arguments), resilient_parsing=True)
    name, found, rest = command.resolve_command(context, list(arguments))  # type: ignore[attr-defined]
    assert found is not None, f"{name}: no such command"
    parsed = found.make_context(name, rest, parent=context, resilient_parsing=not rest)
    check_settings(parsed.params.get("settings") or (), parsed.params.get("experiment") or "stdlib")
    return arguments


def check_settings(settings: Iterable[str], experiment: str = "stdlib") -> None:
    """Refuses keys and values that the config reader doesn't take."""
    load_experiment(_at_hand(experiment), settings=parse_settings(settings), starts=False)


@functools.cache
def _at_hand(experiment: str) -> str:
    """The experiment; stdlib stands in for a reader's own, and for one whose base lies on the Hub."""
    try:
        load_experiment(experiment, starts=False)
    except ConfigError:
        return "stdlib"
    return experiment


def _make(target: str, variables: list[str]) -> list[str] | None:
    assert target in TARGETS, f"make {target}: no such target"
    values = dict(one.split("=", 1) for one in variables)
    assert set(values) <= {"ARGS", "DEVICE", "EXPERIMENT"}
    arguments = shlex.split(values.get("ARGS", ""))
    if target in OF_TITANFLOW:
        return _parsed([target, values.get("EXPERIMENT", "stdlib"), *arguments])
    if target == "serve":
        _parsed(["serve", *arguments])
    return None


def _deployment(name: str, arguments: list[str]) -> None:
    """A deployment's parameters are those of its flow, and its overrides keys of a config."""
    from flows.pretrain_sft import pretrain_sft

    assert name == "pretrain-sft/on-demand", f"{name}: no such deployment"
    values = dict(value.split("=", 1) for option, value in pairwise(arguments) if option == "--param")
    assert set(values) <= set(inspect.signature(pretrain_sft.fn).parameters)
    overrides = json.loads(values.get("overrides", "{}"))
    settings = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    check_settings(settings, values.get("experiment") or "stdlib")
