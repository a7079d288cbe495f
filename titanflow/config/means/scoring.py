"""Which evaluation scores what is published, and which one says how a training is scored on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from titanflow.common.errors import Problem, did_you_mean
from titanflow.config.means.recipe import means_of
from titanflow.config.stages import modules_of, named_module

if TYPE_CHECKING:
    from titanflow.config.module import Module

PUBLISHED, DURING = "evaluation", "during.evaluation"
"""The keys that name an evaluation, of a publication and of a training."""


def settle_evaluations(modules: Mapping[str, Module]) -> list[Problem]:
    """Puts the name of the evaluation where a publication, or a training that is scored on the way, names none.

    It is the experiment's only one, or else the only one that scores the model. Returns mistakes.
    """
    problems: list[Problem] = []
    for module in modules.values():
        if module.kind == "publish":
            problems += _settle(module, PUBLISHED, module.config, module.config["model"], modules)
        elif module.trains and module.config["during"]["every"] is not None:
            problems += _settle(module, DURING, module.config["during"], module.name, modules)
    return problems


def scores(evaluate: Module, model: str, modules: Mapping[str, Module]) -> bool:
    """Whether an evaluation names a model of the experiment; one of folders names none."""
    models = evaluate.config["models"]
    named = models if isinstance(models, list) else []
    return model in named or model in {found.name for one in named if (found := named_module(one, modules))}


def unknown_model(publish: Module, modules: Mapping[str, Module]) -> list[Problem]:
    """The mistake of a publication whose model nothing makes: no module trains it, and no evaluation that may score
    the publication has a mean of that name."""
    model, named = publish.config["model"], publish.config["evaluation"]
    made = [name for name, module in modules.items() if module.trains]
    for evaluate in modules_of("evaluate", modules):
        made += means_of(evaluate.config) if named in (None, evaluate.name) else ()
    if model in made:
        return []
    found, hint = f"found {model!r}, which no module of this experiment trains", did_you_mean(model, made)
    return [publish.problem("model", found, " or ".join(dict.fromkeys(made)) or "a module that trains", hint)]


def _settle(
    module: Module, key: str, section: dict[str, str | None], model: str, modules: Mapping[str, Module]
) -> Iterator[Problem]:
    every = modules_of("evaluate", modules)
    known, named = [one.name for one in every], section["evaluation"]
    if named is not None:
        if named not in known:
            expected = " or ".join(known) or "none: the experiment has no evaluate module"
            yield module.problem(
                key, f"found {named!r}, which is no evaluate module", expected, did_you_mean(named, known)
            )
        return
    found = known if len(known) == 1 else [one.name for one in every if scores(one, model, modules)]
    if len(found) == 1:
        section["evaluation"] = found[0]
    elif module.kind == "publish" and (problems := unknown_model(module, modules)):
        yield from problems
    elif known:
        who = f"{' and '.join(found)} score {model}" if found else f"none of {' and '.join(known)} scores {model}"
        yield module.problem(key, who, f"one of {', '.join(found or known)}", f"set {module.name}.{key}")
