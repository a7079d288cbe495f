"""Plans what the prepare step makes for a run's stages, and where: known from the config alone.

Prepared folders have their fingerprint in their name. So runs share them, and a changed source gets a new one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from titanflow.architectures.huggingface import download_plan, missing_weights
from titanflow.common.digests import digest
from titanflow.common.errors import ConfigError, DataError, Problem
from titanflow.config.checks.template import template_problems
from titanflow.config.division import written_at
from titanflow.config.experiment import Experiment
from titanflow.config.files.chat_template import CHATML, resolve_template
from titanflow.config.keys.training import RENDERED_KINDS
from titanflow.config.mixture import mixture_members, mixture_spec
from titanflow.config.module import Module
from titanflow.data.fingerprints import data_parts, mixture_fingerprint, prepared_folder
from titanflow.data.inspect.declared import check_declared
from titanflow.planning.data_mistakes import named_in, without_rows
from titanflow.planning.data_source import SECTIONS, DataSource, read_sections, read_sources
from titanflow.planning.evaluation.during import during_modules
from titanflow.planning.held_out import apart_problems
from titanflow.planning.origin.given_tokenizer import EXPECTED, reader_of
from titanflow.planning.origin.initial_weights import InitialWeights
from titanflow.planning.origin.tokenizer_plan import TokenizerPlans
from titanflow.runs.contract import PreparedData
from titanflow.runs.manifest import Manifest


@dataclass
class Preparation:
    """The prepare step's config, and which module reads which of its folders.

    ``sources`` and ``mixtures`` have what rows are made of, by module and section (``pretrain.data``); ``initial`` has
    the weights that a pretraining begins with, by module.
    """

    config: dict[str, Any]
    tokenizers: TokenizerPlans
    data: dict[str, PreparedData] = field(default_factory=dict)
    sources: dict[str, list[DataSource]] = field(default_factory=dict)
    mixtures: dict[str, dict[str, Any]] = field(default_factory=dict)
    initial: dict[str, InitialWeights] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment, workspace: Path, manifest: Manifest) -> Preparation:
        """Plans the preparation of an experiment's data in ``workspace``; ``manifest`` is its run's."""
        if problems := apart_problems(experiment) or without_rows(experiment.modules.values()):
            raise ConfigError(problems)
        launcher = asdict(experiment.spec.prepare.launcher)
        config: dict[str, Any] = {"workspace": str(workspace), "launcher": launcher, "weights": [], "datasets": []}
        preparation = cls(config, TokenizerPlans(workspace, manifest))
        try:
            preparation._plan(experiment, workspace, manifest)
        except DataError as error:
            raise DataError(_source_problems(experiment, workspace) or error.problems) from error
        config["tokenizer"] = preparation.tokenizers.config
        return preparation

    def folders(self) -> list[Path]:
        datasets = [Path(dataset["folder"]) for dataset in self.config["datasets"]]
        tokenizer = [Path(self.config["tokenizer"]["folder"])] if self.config["tokenizer"] else []
        return list(dict.fromkeys([*tokenizer, *self._weights(), *datasets]))

    def missing(self) -> list[Path]:
        """The folders that are still to be made; one that exists is complete, since it was renamed into place.

        A model from the Hub has its config since the plan, so its weights count.
        """
        weights = self._weights()
        return [one for one in self.folders() if (missing_weights(one) if one in weights else not one.is_dir())]

    def bring_weights(self, experiment: Experiment, at_work: Collection[str]) -> None:
        """Adds the Hub's weights that the stages ``at_work`` load; a finished stage needs none."""
        for module in experiment.modules.values():
            initial, base = self.initial.get(module.name), module.base
            loaded = {module.name: initial.folder if initial else None}
            if base is not None and base.in_hf:
                # Evaluations score the base beside the fine-tuned model.
                evaluations = [one.name for one in experiment.of_kind("evaluate")]
                loaded = dict.fromkeys((module.name, *evaluations), base.folder)
            needed = [folder for stage, folder in loaded.items() if stage in at_work and folder is not None]
            if plan := download_plan(needed[0]) if needed else None:
                self.config["weights"].append(plan)

    def _weights(self) -> list[Path]:
        return [Path(one["folder"]) for one in self.config["weights"]]

    def _plan(self, experiment: Experiment, workspace: Path, manifest: Manifest) -> None:
        for module in (*experiment.modules.values(), *during_modules(experiment)):
            if module.trains:
                with named_in(module):
                    self.tokenizers.add(module, reader_of(module, experiment))
                if initial := InitialWeights.of(module, manifest):
                    self.initial[module.name] = initial
            for section in read_sections(module):
                if not module.trains or not module.config[section]["streaming"]:
                    self._plan_dataset(module, section, workspace)

    def _plan_dataset(self, module: Module, section: str, workspace: Path) -> None:
        data, part = module.config[section], SECTIONS[section]
        if module.trains and module.name not in self.tokenizers.fingerprints:
            raise ConfigError(module.problem("tokenizer.path", f"{module.name} has data and no tokenizer", EXPECTED))
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
        setattr(self.data.setdefault(module.name, PreparedData()), part, Path(planned["folder"]))

    def _add_source(
        self, module: Module, section: str, data: dict[str, Any], seq_len: int, workspace: Path
    ) -> dict[str, Any]:
        tokenizer = self.tokenizers.fingerprints.get(module.name, "")
        with named_in(module, section):
            chat = self._chat(module) if data["kind"] in RENDERED_KINDS and module.trains else None
            parts = data_parts(data, tokenizer, seq_len, chat, workspace)
        around = section.partition(".")[0]
        self.sources.setdefault(f"{module.name}.{around}", []).append(DataSource(section, data, parts))
        kind = data["kind"] if module.trains else "evals"
        trains = module.trains and around == "data"
        planned = self._add_dataset(data, kind, digest(parts), workspace, seq_len=seq_len, chat=chat, trains=trains)
        if not Path(planned["folder"]).is_dir():
            with named_in(module, section):
                check_declared(data)
        return planned

    def _add_dataset(
        self, data: dict[str, Any], kind: str, fingerprint: str, workspace: Path, **options: Any
    ) -> dict[str, Any]:
        folder = prepared_folder(workspace, data, fingerprint)
        planned = {"folder": str(folder), "kind": kind, "data": data, "fingerprint": fingerprint, **options}
        self.config["datasets"].append(planned)
        return planned

    def _chat(self, module: Module) -> dict[str, Any]:
        """The section ``chat`` with the template's text in the place of its name."""
        chat, tokenizer = module.config["chat"], self.tokenizers.template_source(module)
        name = chat["template"] or (CHATML if tokenizer is None else "of the tokenizer")
        template = resolve_template(chat["template"], tokenizer)
        if problems := template_problems(module, template, name):
            raise ConfigError(problems)
        return {**chat, "template": template, "template_name": name}


def _source_problems(experiment: Experiment, workspace: Path) -> list[Problem]:
    """What is wrong with the experiment's sources, each with its key and where that was written."""
    found: dict[tuple[str, str], Problem] = {}
    for module, key, data in read_sources(experiment):
        try:
            data_parts(data, workspace=workspace)
        except DataError as error:
            for problem in error.problems:
                name = problem.key.removeprefix("data").removeprefix(".")
                origin = problem.origin or written_at(module, key, name)
                located = replace(problem, key=f"{module.name}.{key}.{name}".rstrip("."), origin=origin)
                # Sections that name the same data file share its mistakes.
                found.setdefault((origin, problem.message), located)
    return list(found.values())
