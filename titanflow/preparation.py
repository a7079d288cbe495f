"""What a run's stages need prepared, and where it lies: known from the config alone, before anything is made.

Prepared folders carry their fingerprint in their name, so that runs share them and a changed source is never
mistaken for the old one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from titanflow.apart import apart_problems
from titanflow.base_model import TOKENIZER_FILE, BaseArchitecture
from titanflow.config.checks import has_data
from titanflow.config.experiment import Experiment
from titanflow.config.mixture import mixture_members
from titanflow.config.module import Module
from titanflow.data_inputs import SECTIONS, DataSource
from titanflow.errors import ConfigError
from titanflow.families import WORDS
from titanflow.fingerprint import digest
from titanflow.hf_base import download_plan, missing_weights
from titanflow.stage import PreparedData
from titanflow.trained_tokenizer import untrainable


@dataclass
class Preparation:
    """The prepare step's config, and which module reads which of its folders.

    What a module's rows are made of is in ``sources`` and ``mixtures``, by module and section (``pretrain.data``), and
    what its tokenizer is, in ``tokenizer_parts``.
    """

    config: dict[str, Any]
    tokenizers: dict[str, Path] = field(default_factory=dict)
    data: dict[str, PreparedData] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    sources: dict[str, list[DataSource]] = field(default_factory=dict)
    mixtures: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokenizer_parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment, workspace: Path) -> Preparation:
        """Plans the preparation of an experiment's data in ``workspace``.

        Raises:
            ConfigError: a tokenizer is missing or doesn't fit.
            DataError: a source isn't there.
        """
        config: dict[str, Any] = {"workspace": str(workspace), "num_proc": None, "tokenizer": None, "datasets": []}
        config["base"] = None
        preparation = cls(config)
        if problems := apart_problems(experiment):
            raise ConfigError(problems)
        for module in experiment.modules.values():
            if module.trains:
                preparation._plan_tokenizer(module, workspace)
            if module.base is not None:
                config["base"] = download_plan(module.base)
            for section, part in SECTIONS.items():
                if has_data(module, section) and not _skips(module, module.config[section]):
                    preparation._plan_dataset(module, section, part, workspace)
        return preparation

    def tokenizer_of(self, module: Module) -> Path | None:
        """The folder of a module's tokenizer."""
        return self.tokenizers.get(module.name)

    def data_of(self, module: Module) -> PreparedData:
        """The folders of a module's rows."""
        return self.data.get(module.name, PreparedData())

    def folders(self) -> list[Path]:
        """Every folder that this run reads."""
        datasets = [Path(dataset["folder"]) for dataset in self.config["datasets"]]
        others = [Path(part["folder"]) for part in (self.config["tokenizer"], self.config["base"]) if part]
        return list(dict.fromkeys([*others, *datasets]))

    def missing(self) -> list[Path]:
        """The folders that are still to be made; one that exists is complete, for it was renamed into place.

        Of a base from the Hub the config is there since the plan, and what counts are its weights.
        """
        base = Path(self.config["base"]["folder"]) if self.config["base"] else None
        return [
            folder for folder in self.folders() if (missing_weights(folder) if folder == base else not folder.is_dir())
        ]

    def _plan_tokenizer(self, module: Module, workspace: Path) -> None:
        from titanflow.data.fingerprints import tokenizer_fingerprint, tokenizer_folder

        if module.stage == "sft":
            self._take_tokenizer(module, workspace)
            return
        given = given_tokenizer(module)
        vocab_size = module.config["tokenizer"]["vocab_size"] or module.model_args.get("vocab_size", 0)
        trains = has_data(module) and not module.config["training"]["mock_data"]
        if given is None and not trains:
            return
        if given is None and (problems := untrainable(module, vocab_size)):
            raise ConfigError(problems)
        train_on = {} if given else module.config["data"]
        words = "" if given else WORDS.get(module.config["model"]["name"], "")
        described = {"path": given, "words": words}
        fingerprint = tokenizer_fingerprint(described, train_on, vocab_size, workspace)
        folder = tokenizer_folder(workspace, fingerprint)
        self.config["tokenizer"] = {
            "folder": str(folder),
            "path": given,
            "vocab_size": vocab_size,
            "words": words,
            "train_on": train_on,
        }
        self.tokenizers[module.name] = folder
        self.fingerprints[f"{module.name}.tokenizer"] = fingerprint
        trained = {"tokenizer.vocab_size": vocab_size, **({"tokenizer.words": words} if words else {})}
        self.tokenizer_parts[module.name] = _tokenizer_files("tokenizer.path", given) if given else trained

    def _take_tokenizer(self, module: Module, workspace: Path) -> None:
        """An sft reads with its base's tokenizer; one that is named must be the same."""
        base = module.base
        if base is None:
            return
        source = next((name for name in self.tokenizers if _is_of(base, name, self.tokenizers[name])), None)
        if source is not None and not module.config["sft"]["new_special_tokens"]:
            folder, fingerprint = self.tokenizers[source], self.fingerprints[f"{source}.tokenizer"]
        elif base.tokenizer is not None:
            folder, fingerprint = self._copy_tokenizer(base.tokenizer, module, workspace)
        else:
            return
        given = given_tokenizer(module)
        possible = _possible_fingerprints(base.tokenizer or folder, fingerprint)
        if given is not None and _fingerprint_of(given) not in possible:
            key = "tokenizer.path" if module.config["tokenizer"]["path"] else "model.hf_assets_path"
            raise ConfigError(
                module.problem(
                    key,
                    f"found {given}, and {base.stage} has another tokenizer ({folder}): fine-tuning keeps its base's",
                    hint="leave it out here, or give it to the base and pretrain again",
                )
            )
        self.tokenizers[module.name] = folder
        self.fingerprints[f"{module.name}.tokenizer"] = fingerprint
        if base.folder is not None:
            self.tokenizer_parts[module.name] = _tokenizer_files("sft.base", base.tokenizer or folder)

    def _copy_tokenizer(self, source: Path, module: Module, workspace: Path) -> tuple[Path, str]:
        """Plans a copy of an outside base's tokenizer; the folder and the fingerprint to know it by."""
        from titanflow.data.fingerprints import tokenizer_folder

        fingerprint, added = _fingerprint_of(str(source)), module.config["sft"]["new_special_tokens"]
        if added:
            _check_new(added, source, module)
            fingerprint = digest([fingerprint, added])
        folder = tokenizer_folder(workspace, fingerprint)
        planned = self.config["tokenizer"]
        if planned is None:
            self.config["tokenizer"] = {"folder": str(folder), "path": str(source), "vocab_size": 0, "train_on": {}}
            self.config["tokenizer"]["new_special_tokens"] = added
        elif planned["folder"] != str(folder):
            raise ConfigError(
                module.problem(
                    "sft.base",
                    f"{source} is another tokenizer than this experiment's own, and a run prepares with one",
                    hint="give the stage that starts from an outside base an experiment of its own",
                )
            )
        return folder, fingerprint

    def _plan_dataset(self, module: Module, section: str, part: str, workspace: Path) -> None:
        from titanflow.config.mixture import mixture_spec
        from titanflow.data.fingerprints import mixture_fingerprint

        data = module.config[section]
        if module.trains and not self.fingerprints.get(f"{module.name}.tokenizer"):
            raise ConfigError(
                module.problem(
                    "tokenizer.path",
                    f"{module.name} has data and no tokenizer",
                    expected="a folder with tokenizer.json",
                )
            )
        seq_len = module.config["training" if part == "train" else "validation"]["seq_len"] if module.trains else 0
        members = {
            name: self._add_source(module, f"{section}.mixture.sources.{name}", one, seq_len, workspace)
            for name, one in mixture_members(data).items()
        }
        if members:
            self.mixtures[f"{module.name}.{section}"] = mixture_spec(data)
            fingerprint = mixture_fingerprint(data, {name: one["fingerprint"] for name, one in members.items()})
            folders = {name: one["folder"] for name, one in members.items()}
            planned = self._add_dataset(
                *(data, "mixture", fingerprint, workspace), seq_len=seq_len, members=folders, trains=section == "data"
            )
        else:
            planned = self._add_source(module, section, data, seq_len, workspace)
        self.fingerprints[f"{module.name}.{section}"] = planned["fingerprint"]
        paths = self.data.setdefault(module.name, PreparedData())
        setattr(paths, part, Path(planned["folder"]))

    def _add_source(
        self, module: Module, section: str, data: dict[str, Any], seq_len: int, workspace: Path
    ) -> dict[str, Any]:
        """Plans the folder of one source."""
        from titanflow.data.fingerprints import data_parts

        chat = self._chat(module) if data["kind"] == "chat" and module.trains else None
        tokenizer = self.fingerprints.get(f"{module.name}.tokenizer", "")
        parts = data_parts(data, tokenizer, seq_len, chat, workspace)
        of_section = self.sources.setdefault(f"{module.name}.{section.partition('.')[0]}", [])
        of_section.append(DataSource(section, data, parts))
        kind = data["kind"] if module.trains else "evals"
        trains = module.trains and section.partition(".")[0] == "data"
        return self._add_dataset(data, kind, digest(parts), workspace, seq_len=seq_len, chat=chat, trains=trains)

    def _add_dataset(
        self, data: dict[str, Any], kind: str, fingerprint: str, workspace: Path, **options: Any
    ) -> dict[str, Any]:
        from titanflow.data.fingerprints import prepared_folder

        folder = prepared_folder(workspace, data, fingerprint)
        planned = {"folder": str(folder), "kind": kind, "data": data, "fingerprint": fingerprint, **options}
        self.config["datasets"].append(planned)
        return planned

    def _chat(self, module: Module) -> dict[str, Any]:
        """The section ``chat`` with the template's text in the place of its name."""
        from titanflow.data.template import CHATML, resolve_template

        chat = module.config["chat"]
        tokenizer, trained = self.tokenizers.get(module.name), self.config["tokenizer"] or {}
        if tokenizer is not None and trained.get("folder") == str(tokenizer):
            # A tokenizer that is trained here has chatml, in the form that this version writes.
            tokenizer = Path(trained["path"]) if trained["path"] else None
        name = chat["template"] or (CHATML if tokenizer is None else "of the tokenizer")
        return {**chat, "template": resolve_template(chat["template"], tokenizer), "template_name": name}


def _check_new(tokens: list[str], tokenizer: Path, module: Module) -> None:
    described = json.loads((tokenizer / TOKENIZER_FILE).read_text(encoding="utf-8"))
    added = {token["content"] for token in described.get("added_tokens") or []}
    vocabulary = (described.get("model") or {}).get("vocab")
    known = [token for token in tokens if token in added or (isinstance(vocabulary, dict) and token in vocabulary)]
    if known:
        raise ConfigError(
            module.problem(
                "sft.new_special_tokens",
                f"found {', '.join(known)}, which the base's tokenizer has already",
                hint="leave out what it has",
            )
        )


def _is_of(base: BaseArchitecture, module: str, tokenizer: Path) -> bool:
    """Whether a module's tokenizer is the base's: that of the same experiment, or the very folder."""
    return base.tokenizer == tokenizer or (base.folder is None and base.stage == module)


def _tokenizer_files(key: str, folder: Path | str) -> dict[str, str]:
    """The digest of each file of a given tokenizer, by the key that names the folder and the file."""
    from titanflow.data.fingerprints import given_files

    return {f"{key}: {name}": sha256 for name, sha256 in given_files(folder).items()}


def _fingerprint_of(tokenizer: str) -> str:
    from titanflow.data.fingerprints import tokenizer_fingerprint

    return tokenizer_fingerprint({"path": tokenizer}, {}, 0)


def _possible_fingerprints(folder: Path, planned: str) -> set[str]:
    """What a tokenizer equal to the one in ``folder`` may be known by: as planned, and by its files once made."""
    return {planned} | ({_fingerprint_of(str(folder))} if folder.is_dir() else set())


def given_tokenizer(module: Module) -> str | None:
    """The tokenizer that a config names, as a folder; None where one is to be trained."""
    own = module.config["tokenizer"]["path"]
    if own:
        return str(own)
    is_default = module.origins.get("model.hf_assets_path", "").startswith("torchtitan ")
    return None if is_default else module.config["model"]["hf_assets_path"]


def _skips(module: Module, data: dict[str, Any]) -> bool:
    """What needs no preparation: random tokens, a stream, validation that is off."""
    if not module.trains:
        return False
    is_validation = data is module.config["validation_data"]
    return (
        module.config["training"]["mock_data"]
        or data["streaming"]
        or (is_validation and not module.config["validation"]["enable"])
    )
