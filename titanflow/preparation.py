"""What a run's stages need prepared, and where it lies: known from the config alone, before anything is made.

Prepared folders carry their fingerprint in their name, so that runs share them and a changed source is never
mistaken for the old one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from titanflow.config.checks import has_data
from titanflow.config.experiment import Experiment
from titanflow.config.mixture import mixture_members
from titanflow.config.module import Module
from titanflow.errors import ConfigError, Problem
from titanflow.stage import RESULT_FILE, PreparedData, read_result

SECTIONS = {"data": "train", "validation_data": "validation"}


@dataclass
class Preparation:
    """The prepare step's config, and which module reads which of its folders."""

    config: dict[str, Any]
    tokenizers: dict[str, Path] = field(default_factory=dict)
    data: dict[str, PreparedData] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment, workspace: Path) -> Preparation:
        """Plans the preparation of an experiment's data in ``workspace``.

        Raises:
            ConfigError: a tokenizer is missing or doesn't fit.
            DataError: a source isn't there.
        """
        config: dict[str, Any] = {"workspace": str(workspace), "num_proc": None, "tokenizer": None, "datasets": []}
        preparation = cls(config)
        for module in experiment.modules.values():
            if module.trains:
                preparation._plan_tokenizer(module, experiment, workspace)
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
        tokenizer = self.config["tokenizer"]
        return list(dict.fromkeys([*([Path(tokenizer["folder"])] if tokenizer else []), *datasets]))

    def missing(self) -> list[Path]:
        """The folders that are still to be made; one that exists is complete, for it was renamed into place."""
        return [folder for folder in self.folders() if not folder.is_dir()]

    def _plan_tokenizer(self, module: Module, experiment: Experiment, workspace: Path) -> None:
        from titanflow.data.fingerprints import tokenizer_fingerprint, tokenizer_folder

        if module.stage == "sft":
            self._take_tokenizer(module, experiment)
            return
        given = given_tokenizer(module)
        vocab_size = module.config["tokenizer"]["vocab_size"] or module.model_args.get("vocab_size", 0)
        trains = has_data(module) and not module.config["training"]["mock_data"]
        if given is None and not trains:
            return
        if given is None and module.config["data"]["streaming"]:
            raise ConfigError(
                Problem(
                    "a tokenizer can't be trained on a stream",
                    key=f"{module.name}.data.streaming",
                    origin=module.origins.get("data.streaming", ""),
                    expected="a tokenizer's folder in `tokenizer.path` or `model.hf_assets_path`",
                )
            )
        train_on = {} if given else module.config["data"]
        fingerprint = tokenizer_fingerprint({"path": given, "vocab_size": vocab_size}, train_on, vocab_size, workspace)
        folder = tokenizer_folder(workspace, fingerprint)
        self.config["tokenizer"] = {
            "folder": str(folder),
            "path": given,
            "vocab_size": vocab_size,
            "train_on": train_on,
        }
        self.tokenizers[module.name] = folder
        self.fingerprints[f"{module.name}.tokenizer"] = fingerprint

    def _take_tokenizer(self, module: Module, experiment: Experiment) -> None:
        """An sft reads with its base's tokenizer; one that is named must be the same."""
        base = module.config["sft"]["base"]
        source = experiment.modules.get(base) or experiment.stage(base)
        folder: Path | None
        if source is not None and source.name in self.tokenizers:
            folder = self.tokenizers[source.name]
            fingerprint = self.fingerprints[f"{source.name}.tokenizer"]
        elif source is None and (Path(base) / RESULT_FILE).exists():
            folder = getattr(read_result(Path(base)), "tokenizer", None)
            fingerprint = _fingerprint_of(str(folder)) if folder else ""
        else:
            return
        if folder is None:
            return
        given = given_tokenizer(module)
        if given is not None and _fingerprint_of(given) not in _possible_fingerprints(folder, fingerprint):
            key = "tokenizer.path" if module.config["tokenizer"]["path"] else "model.hf_assets_path"
            raise ConfigError(
                Problem(
                    f"found {given}, and {base} has another tokenizer ({folder}): fine-tuning keeps its base's",
                    key=f"{module.name}.{key}",
                    origin=module.origins.get(key, ""),
                    hint="leave it out here, or give it to the base and pretrain again",
                )
            )
        self.tokenizers[module.name] = folder
        self.fingerprints[f"{module.name}.tokenizer"] = fingerprint

    def _plan_dataset(self, module: Module, section: str, part: str, workspace: Path) -> None:
        data = module.config[section]
        if module.trains and not self.fingerprints.get(f"{module.name}.tokenizer"):
            raise ConfigError(
                Problem(
                    f"{module.name} has data and no tokenizer",
                    key=f"{module.name}.tokenizer.path",
                    origin=module.origins.get("tokenizer.path", ""),
                    expected="a folder with tokenizer.json",
                )
            )
        seq_len = module.config["training" if part == "train" else "validation"]["seq_len"] if module.trains else 0
        members = mixture_members(data)
        folders = {name: self._add_dataset(module, member, seq_len, workspace) for name, member in members.items()}
        folder = self._add_dataset(module, data, seq_len, workspace, folders)
        self.fingerprints[f"{module.name}.{section}"] = self.config["datasets"][-1]["fingerprint"]
        paths = self.data.setdefault(module.name, PreparedData())
        setattr(paths, part, folder)

    def _add_dataset(
        self,
        module: Module,
        data: dict[str, Any],
        seq_len: int,
        workspace: Path,
        members: dict[str, Path] | None = None,
    ) -> Path:
        """Plans one folder: a source's, or that of a mixture of ``members``."""
        from titanflow.data.fingerprints import data_fingerprint, prepared_folder

        chat = self._chat(module) if data["kind"] == "chat" else None
        tokenizer = self.fingerprints.get(f"{module.name}.tokenizer", "")
        fingerprint = data_fingerprint(data, tokenizer, seq_len, chat, workspace)
        folder = prepared_folder(workspace, data, fingerprint)
        self.config["datasets"].append(
            {
                "folder": str(folder),
                "kind": "mixture" if members else data["kind"],
                "data": data,
                "members": {name: str(path) for name, path in (members or {}).items()},
                "seq_len": seq_len,
                "chat": chat,
                "fingerprint": fingerprint,
            }
        )
        return folder

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
