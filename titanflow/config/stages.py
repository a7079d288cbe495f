"""The stages of an experiment: the kind and the place of each module, and which module a name means."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from titanflow.common.errors import Problem, did_you_mean
from titanflow.config.files.foreign_names import KINDS as FOREIGN_KINDS
from titanflow.config.files.schema import dataclass_schema
from titanflow.config.keys.experiment import BASE_KEYS, ExperimentSpec
from titanflow.config.means.recipe import averaged_stages, means_of
from titanflow.files.yaml_source import Leaf, Tree, first_origin, plain
from titanflow.runs.contract import DURING_FOLDER, KIND_OF, KINDS, TRAINED, StageKind

if TYPE_CHECKING:
    from titanflow.architectures.base import BaseArchitecture
    from titanflow.config.module import Module

BASE = "base"
"""Among the names of models: what the fine-tuning starts from, a module or a model from outside."""
AFTER_TRAINING: tuple[StageKind, ...] = ("evaluate", "publish")
"""The kinds that train nothing, in the order in which they run."""
_BY_KIND = re.compile(r"`modules\.(\w+)\.")
"""A module in a hint."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
"""A folder's name, and with more around it that of a cluster's job, which Kubernetes limits to 63 letters."""
NAME_EXPECTED = "at most 40 letters (a to z), digits, dashes and underscores; first a letter or a digit"
TAKEN = ("prepare", BASE, "superseded", "scored", "rehearsal", "modules")
"""Names that mean something else in a run's folder, among models, or in ``--set``."""


def kind_of(name: str, spec: Leaf | Tree | None) -> StageKind | None:
    """The kind of an entry of ``modules``: its key ``stage``, or that which its name says; None for neither."""
    named = spec.get("stage") if isinstance(spec, dict) else None
    wanted = str(named.value) if isinstance(named, Leaf) and named.value is not None else name
    found = KIND_OF.get(wanted)
    return None if found == "prepare" else found


def alike(name: str) -> str:
    """What two names share that would be one in Prefect's artifacts, a cluster's jobs and on some file systems."""
    return name.lower().replace("_", "-")


def is_name(name: str) -> bool:
    """Whether a stage, or a mean of stages, may have this name, which its folder has, too."""
    return _NAME.fullmatch(name) is not None


def entry_problems(name: str, spec: Tree, earlier: Mapping[str, Module]) -> list[Problem]:
    """Mistakes in a module's name and in its kind."""
    key, origin, named = f"modules.{name}", first_origin(spec), spec.get("stage")
    kinds = [kind for kind in KINDS if kind != "prepare"]
    if (kind := kind_of(name, spec)) is None:
        if isinstance(named, Leaf) and named.value is not None:
            hint = did_you_mean(FOREIGN_KINDS.get(str(named.value).lower(), str(named.value)), kinds)
            return [Problem(f"found {str(named.value)!r}", f"{key}.stage", named.origin, ", ".join(kinds), hint)]
        meant = FOREIGN_KINDS.get(name.lower(), "sft")
        hint = did_you_mean(name, KIND_OF) or f"`{name}: {{stage: {meant}, …}}` says what the module does"
        return [
            Problem("the module's name says no kind of stage", key, origin, f"a key `stage`: {', '.join(kinds)}", hint)
        ]
    is_key = name in dataclass_schema(ExperimentSpec)["properties"]
    is_other = any(alike(one) == alike(name) and other != kind for one, other in KIND_OF.items())
    # A training's scores on the way are those of a stage of this name.
    is_during = alike(name).endswith(f"-{DURING_FOLDER}")
    if is_key or alike(name) in TAKEN or is_other or is_during:
        return [Problem("the name means something else", key, origin, "another name")]
    if not is_name(name):
        return [Problem(f"found {name!r}", key, origin, NAME_EXPECTED)]
    named = [(one, spec[one]) for one in BASE_KEYS if plain(spec.get(one)) is not None]
    if kind in AFTER_TRAINING and named:
        expected = "no base: nothing is trained here"
        return [
            Problem(f"found {plain(it)!r}", f"{key}.{one}", first_origin(it) or origin, expected) for one, it in named
        ]
    if same := [one for one in earlier if alike(one) == alike(name)]:
        return [Problem(f"differs from {same[0]} in case, dashes and underscores alone", key, origin, "another name")]
    return []


def by_own_names(problems: Iterable[Problem], kinds: Mapping[str, StageKind | None]) -> list[Problem]:
    """Mistakes whose hints name a module by its kind, ``modules.evaluate.…``, where it has another name here.

    ``kinds`` are those of the experiment's modules, by name. The mistake's own module goes before others of the kind.
    """

    def own(problem: Problem, found: re.Match[str]) -> str:
        name, mine = found[1], problem.key.removeprefix("modules.").partition(".")[0]
        meant = KIND_OF.get(name)
        if name in kinds or meant is None:
            return found[0]
        if kinds.get(mine) == meant or (kinds.get(mine) in TRAINED and meant in ("pretrain", "sft")):
            return f"`modules.{mine}."
        return f"`modules.{next((one for one, kind in kinds.items() if kind == meant), name)}."

    return [replace(one, hint=_BY_KIND.sub(functools.partial(own, one), one.hint)) for one in problems]


def in_order(modules: Mapping[str, Module]) -> list[Module]:
    """The modules as they run, each kind as it is written: those that train, bases first; evaluations; publications."""
    after = {kind: place for place, kind in enumerate(AFTER_TRAINING)}
    return sorted(modules.values(), key=lambda module: after.get(module.kind, -1))


def modules_of(kind: StageKind, modules: Mapping[str, Module]) -> list[Module]:
    """The modules of a kind, in the order in which they run."""
    return [module for module in modules.values() if module.kind == kind]


def named_module(name: str, modules: Mapping[str, Module]) -> Module | None:
    """The module that a key such as ``publish.model`` means.

    ``pretrain`` and ``sft``, which are defaults, mean modules of Primus's names, too: ``pre_trainer``. ``base`` is what
    the fine-tuning starts from; None where that is a model from outside, or where fine-tunings start from several.
    """
    if name in modules:
        return modules[name]
    if name == BASE:
        begun = fine_tuning_base(modules)
        if begun is None:
            pretrained = modules_of("pretrain", modules)
            return pretrained[0] if len(pretrained) == 1 else None
        return modules.get(begun.stage) if begun.folder is None else None
    return next((one for one in modules.values() if name in KINDS and KIND_OF.get(one.name) == name), None)


def model_module(name: str, modules: Mapping[str, Module]) -> Module | None:
    """The module of a model; of a mean the first of its stages, whose architecture, data and template it has."""
    means = (means_of(evaluate.config).get(name) for evaluate in modules_of("evaluate", modules))
    mean = next(filter(None, means), None)
    return modules.get(mean.stages[0]) if mean is not None else named_module(name, modules)


def fine_tuning_base(modules: Mapping[str, Module]) -> BaseArchitecture | None:
    """What the fine-tunings start from that start from no other one; None without any, or if they differ."""
    tuned = {name: module.base for name, module in modules.items() if module.kind not in ("pretrain", *AFTER_TRAINING)}
    found = {base.stage: base for base in tuned.values() if base is not None and base.stage not in tuned}
    return next(iter(found.values())) if len(found) == 1 else None


def base_folder(modules: Mapping[str, Module], run: Path) -> Path | None:
    """The folder of the model that an evaluation calls :data:`BASE`, in a run's folder or outside of it."""
    begun, module = fine_tuning_base(modules), named_module(BASE, modules)
    if module is not None:
        return run / module.name
    return begun.folder if begun is not None else None


def name_models(modules: Mapping[str, Module]) -> None:
    """Puts a module's own name where ``evaluate.models`` and ``publish.model`` call it otherwise, as defaults do."""

    def named(name: str) -> str:
        module = named_module(name, modules) if name != BASE else None
        return module.name if module is not None and module.trains else name

    for module in modules.values():
        if module.kind == "publish" and isinstance(module.config["model"], str):
            module.config["model"] = named(module.config["model"])
        if module.kind == "evaluate" and isinstance(models := module.config["models"], list):
            module.config["models"] = [named(name) if isinstance(name, str) else name for name in models]


def made_for(names: Sequence[str], modules: Mapping[str, Module]) -> dict[str, Module]:
    """The named modules, and those that they are made from: bases, and the models that are evaluated or published."""
    needed = list(names)
    for name in needed:
        needed += [one for one in _named_by(modules[name], modules) if one not in needed]
    return {name: module for name, module in modules.items() if name in needed}


def _named_by(module: Module, modules: Mapping[str, Module]) -> list[str]:
    """The modules that a module names as its base or its models; a publication is made from its scores, too."""
    if module.trains:
        own = [module.base.stage] if module.base is not None and module.base.folder is None else []
        return [*own, *averaged_stages(module.config)]
    models = module.config["models"] if module.kind == "evaluate" else [module.config["model"]]
    if isinstance(models, list):
        named = (named_module(name, modules) for name in [*models, *averaged_stages(module.config)])
        found = [one.name for one in named if one is not None]
    else:
        # Folders may be those of any training.
        found = [name for name, one in modules.items() if one.trains]
    return found + [name for name in modules if module.kind == "publish" and name == module.config["evaluation"]]
