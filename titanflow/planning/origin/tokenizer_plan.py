"""Plans the one tokenizer that a run prepares, and which modules use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from titanflow.architectures.base import TOKENIZER_FILE, BaseArchitecture
from titanflow.architectures.families.registry import family_of
from titanflow.common.digests import digest
from titanflow.common.errors import ConfigError
from titanflow.config.checks.module import has_data
from titanflow.config.model_args import family
from titanflow.config.module import Module
from titanflow.data.fingerprints import tokenizer_fingerprint, tokenizer_folder
from titanflow.data.tokenizer.tokenizer import described_size
from titanflow.planning.origin.given_tokenizer import EXPECTED, KEYS, GivenTokenizer, given_tokenizer
from titanflow.planning.origin.trained_tokenizer import untrainable
from titanflow.runs.manifest import Manifest


@dataclass
class TokenizerPlans:
    """What the prepare step makes (``config``; None for nothing), and each module's folder, fingerprint and parts.

    ``manifest`` is the run's. ``parts`` say what a module's tokenizer is made of, by config key.
    """

    workspace: Path
    manifest: Manifest
    config: dict[str, Any] | None = None
    folders: dict[str, Path] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, module: Module, reader: str) -> None:
        """Plans a training module's tokenizer; ``reader`` says what needs one (empty: nothing does)."""
        given = given_tokenizer(module, reader, self.workspace, self.manifest)
        if module.base is not None:
            self._take(module, given)
        elif given is not None:
            self._copy(module, given)
        elif has_data(module) and not module.config["training"]["mock_data"]:
            self._train(module)
        elif reader and family(module.config["model"]["name"]) is not None:
            # A user's own family may read rows that are no text.
            message = f"no tokenizer is named, and {reader}"
            dataset, is_mock = module.config["training"]["dataset"], module.config["training"]["mock_data"]
            hint = f"or name rows in {module.name}'s `data:`; without them it reads torchtitan's {dataset}"
            expected = f"here or in {KEYS[0]}: {EXPECTED}"
            raise ConfigError(module.problem(KEYS[1], message, expected, "" if is_mock else hint))

    def template_source(self, module: Module) -> Path | None:
        """The folder of a tokenizer that may have a chat template; None for one that is trained here."""
        folder = self.folders.get(module.name)
        if folder is None or self.config is None or self.config["folder"] != str(folder):
            return folder
        # A tokenizer that is trained here gets this version's chatml.
        path = self.config.get("path")
        return Path(path) if path else None

    def _copy(self, module: Module, given: GivenTokenizer) -> None:
        self._plan(module, given.fingerprint, _copied(given))
        if not self.folders[module.name].is_dir():
            _check_size(module, given)
        self.parts[module.name] = given.parts

    def _train(self, module: Module) -> None:
        vocab_size = module.config["tokenizer"]["vocab_size"] or module.model_args.get("vocab_size", 0)
        if problems := untrainable(module, vocab_size):
            raise ConfigError(problems)
        train_on, words = module.config["data"], family_of(module.config["model"]["name"]).words
        fingerprint = tokenizer_fingerprint({"words": words}, train_on, vocab_size, self.workspace)
        self._plan(module, fingerprint, {"vocab_size": vocab_size, "words": words, "train_on": train_on})
        self.parts[module.name] = {"tokenizer.vocab_size": vocab_size, **({"tokenizer.words": words} if words else {})}

    def _plan(self, module: Module, fingerprint: str, how: dict[str, Any]) -> None:
        folder = tokenizer_folder(self.workspace, fingerprint)
        self.config = {"folder": str(folder), **how}
        self.folders[module.name], self.fingerprints[module.name] = folder, fingerprint

    def _take(self, module: Module, given: GivenTokenizer | None) -> None:
        """Gives a module its base's tokenizer; a named one must be the same."""
        base = module.base
        assert base is not None
        own = next((name for name in self.folders if _is_of(base, name, self.folders[name])), None)
        outside = _outside(base, given)
        if own is not None and not module.config["tokenizer"]["new_special_tokens"]:
            folder, fingerprint = self.folders[own], self.fingerprints[own]
        elif outside is not None:
            folder, fingerprint = self._copy_outside(outside, module)
        else:
            return
        if given is not None:
            _check_same(module, given, outside.folder if outside else folder, fingerprint)
        self.folders[module.name], self.fingerprints[module.name] = folder, fingerprint
        if outside is not None:
            added = module.config["tokenizer"]["new_special_tokens"]
            self.parts[module.name] = outside.parts | {"tokenizer.new_special_tokens": added}

    def _copy_outside(self, source: GivenTokenizer, module: Module) -> tuple[Path, str]:
        """Plans a copy of an outside base's tokenizer; returns its folder and fingerprint."""
        fingerprint, added = source.fingerprint, module.config["tokenizer"]["new_special_tokens"]
        if added:
            _check_new(added, source, module)
            fingerprint = digest([fingerprint, added])
        folder = tokenizer_folder(self.workspace, fingerprint)
        if self.config is None:
            self.config = {"folder": str(folder), **_copied(source), "new_special_tokens": added}
        elif self.config["folder"] != str(folder):
            message = f"{source.folder} differs from this experiment's own tokenizer, and a run has only one"
            hint = "give the stage that starts from an outside base an experiment of its own"
            raise ConfigError(module.problem("base", message, hint=hint))
        return folder, fingerprint


def _copied(given: GivenTokenizer) -> dict[str, Any]:
    return {"path": str(given.folder), "repo_id": given.repo_id, "revision": given.commit}


def _outside(base: BaseArchitecture, given: GivenTokenizer | None) -> GivenTokenizer | None:
    """The tokenizer of a base outside of the experiment; if it brings none, the one that the sft names."""
    if base.folder is None:
        return None
    return GivenTokenizer("base", base.tokenizer) if base.tokenizer is not None else given


def _is_of(base: BaseArchitecture, module: str, tokenizer: Path) -> bool:
    """Whether a module's tokenizer is the base's: the module is the base, or the folder is the same."""
    return base.tokenizer == tokenizer or (base.folder is None and base.stage == module)


def _check_same(module: Module, given: GivenTokenizer, folder: Path, planned: str) -> None:
    """Refuses another tokenizer than the base's, by its planned fingerprint or, once it is made, by its files."""
    known = {planned} | ({GivenTokenizer("", folder).fingerprint} if folder.is_dir() else set())
    if given.fingerprint in known:
        return
    assert module.base is not None
    other = f"{module.base.stage} has another tokenizer ({folder})"
    message = f"found {given.named}, and {other}: fine-tuning keeps its base's tokenizer"
    hint = "leave it out here, or give it to the base and pretrain again"
    raise ConfigError(module.problem(given.key, message, hint=hint))


def _check_size(module: Module, given: GivenTokenizer) -> None:
    """Refuses a tokenizer with more tokens than the model has embeddings, if their number is known."""
    rows = module.model_args.get("vocab_size")
    with _readable(given, module):
        tokens = described_size(given.folder)
    if rows and tokens > rows:
        message = f"{given.named} has {tokens:,} tokens, and the model's vocab_size is {rows:,}"
        hint = f"set model.vocab_size to {tokens} or more, or take a smaller tokenizer"
        raise ConfigError(module.problem(given.key, message, f"at most {rows:,} tokens", hint))


@contextmanager
def _readable(given: GivenTokenizer, module: Module) -> Iterator[None]:
    """Refuses a tokenizer whose file the block can't read."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"{given.named}: {TOKENIZER_FILE} can't be read: {error}"
        raise ConfigError(module.problem(given.key, message)) from None


def _check_new(tokens: list[str], given: GivenTokenizer, module: Module) -> None:
    with _readable(given, module):
        described = json.loads((given.folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
        added = {token["content"] for token in described.get("added_tokens") or []}
        vocabulary = (described.get("model") or {}).get("vocab")
        known = [token for token in tokens if token in added or (isinstance(vocabulary, dict) and token in vocabulary)]
    if known:
        message = f"found {', '.join(known)}, which the base's tokenizer has already"
        raise ConfigError(module.problem("tokenizer.new_special_tokens", message, hint="leave out what it has"))
