"""The model that ``--base`` names: a folder, or a repository of the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from titanflow.architectures.base import TOKENIZER_FILE, BaseArchitecture
from titanflow.architectures.outside_base import outside_base
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.architectures.weights import model_weights
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.files.chat_template import CHATML, LLAMA3, TOKENS, ZEPHYR, template_of
from titanflow.files.published_folder import model_hint

KEY = "--base"


@dataclass(frozen=True)
class Base:
    """A base as the user named it, and what was read of it without its weights."""

    named: str
    found: BaseArchitecture

    @classmethod
    def of(cls, named: str) -> Base:
        """Reads a base.

        Raises:
            ConfigError: there is none, it can't be trained on, or the Hub can't be reached.
        """
        try:
            found = outside_base(named)
        except ConfigError as error:
            problems = [Problem(one.message, KEY, one.origin, one.expected, one.hint) for one in error.problems]
            raise ConfigError(problems) from None
        if found is None:
            expected = "the folder of a model, as runs/mine/main/publish/model, or owner/name on the Hub"
            message = f"{named} isn't there (looked for it in {Path.cwd()})"
            raise ConfigError(Problem(message, KEY, "", expected, model_hint(named)))
        if found.tokenizer is None:
            raise ConfigError(Problem(f"{named} has no {TOKENIZER_FILE}", KEY, expected="a model with its tokenizer"))
        return cls(named, found)

    @property
    def tokenizer(self) -> Path:
        assert self.found.tokenizer is not None
        return self.found.tokenizer

    @property
    def parameters(self) -> int:
        """The number of parameters; 0 of a family whose layers aren't known here."""
        shapes = model_weights(self.found.model_name, self.found.model_args) or {}
        return sum(map(prod, shapes.values()))

    @property
    def has_template(self) -> bool:
        return template_of(self.tokenizer) is not None

    def conversations(self, reads_text: bool) -> dict[str, dict[str, Any]]:
        """What an sft says of a tokenizer without a template: none where it has chatml's tokens, which is the default.

        A base that is finished gets these tokens. One that reads text before (``reads_text``) keeps its own: then the
        template is one that needs none.
        """
        if self.has_template or not self._lacks(CHATML):
            return {}
        if not self._lacks(LLAMA3):
            return {"chat": {"template": LLAMA3}}
        if reads_text:
            return {"chat": {"template": ZEPHYR}}
        return {"tokenizer": {"new_special_tokens": self._lacks(CHATML)}}

    def _lacks(self, template: str) -> list[str]:
        """The special tokens of a built-in template that the tokenizer hasn't."""
        text = (self.tokenizer / TOKENIZER_FILE).read_text(encoding="utf-8")
        return [token for token in TOKENS[template] if f'"{token}"' not in text]

    def section(self) -> dict[str, Any]:
        """The section ``model`` of a pretraining that begins with its weights: what differs from the flavor's.

        Raises:
            ConfigError: it is no model in transformers' format, which alone a pretraining begins with.
        """
        if not self.found.in_hf:
            expected = "a model in transformers' format: the folder publish/model of a run, or owner/name on the Hub"
            raise ConfigError(Problem(f"{self.named} is a stage's folder, and --text trains on", KEY, "", expected))
        flavor = load_snapshot()["models"][self.found.model_name]["flavors"][self.found.flavor]
        differs = {key: value for key, value in self.found.model_args.items() if flavor.get(key) != value}
        differs.pop("max_seq_len", None)
        named = {"name": self.found.model_name, "flavor": self.found.flavor}
        return {**named, **differs, "hf_assets_path": self.named}
