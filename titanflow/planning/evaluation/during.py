"""The evaluation of a training's checkpoints while it trains, derived from the evaluate module."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, replace

from titanflow.common.errors import ConfigError
from titanflow.config.checks.module import check_module
from titanflow.config.division import sources
from titanflow.config.experiment import Experiment
from titanflow.config.keys.launcher import Launcher
from titanflow.config.keys.training import is_divided
from titanflow.config.module import Module
from titanflow.runs.contract import DURING_FOLDER, PreparedData, StageRun
from titanflow.runs.tracker_record import KEYS

MODULE = "titan.evaluate.during"
OWN = ("tasks", "limit")
"""The settings of the evaluation that stand in the training's section ``during``."""


def during_modules(experiment: Experiment) -> Iterator[Module]:
    """For each training that is scored on the way a module like its evaluate module, called ``<name>.during``.

    Raises:
        ConfigError: its settings contradict each other, or its source holds no dev part out.
    """
    for module in experiment.modules.values():
        if module.trains and module.config["during"]["every"] is not None:
            yield _derived(module, experiment.evaluations[module.config["during"]["evaluation"]])


def _derived(module: Module, evaluate: Module) -> Module:
    during = module.config["during"]
    config = copy.deepcopy(evaluate.config) | {
        "limit": during["limit"],
        "models": {},
        "means": {},
        "remote_code": {},
        "backend": "native",
        "device": None,
        "contamination": "skip",
        "log_samples": False,
        "examples": 0,
        "launcher": asdict(Launcher()),
        **{tracker: bool(module.config["metrics"][key]) for tracker, key in KEYS.items()},
    }
    config["tasks"] = list(during["tasks"] or config["tasks"])
    origins = dict(evaluate.origins)
    origins |= {key: module.origins.get(f"during.{key}", "") for key in OWN if during[key]}
    if config["data"] and any(is_divided(one) for one in sources(config["data"], "data").values()):
        config["data"]["part"] = "dev"
        origins["data.part"] = "during: choices are made by the dev part"
    derived = replace(
        evaluate,
        name=f"{module.name}.{DURING_FOLDER}",
        config=config,
        origins=origins,
        named={},
        ignored=[],
        warnings=[],
    )
    if problems := check_module(derived):
        raise ConfigError(problems)
    return derived


def during_run(training: StageRun, derived: Module, data: PreparedData | None) -> StageRun:
    """The evaluation's ``run.yaml`` without a model; ``data`` are its prepared items."""
    return StageRun(
        stage=f"{training.stage}-{DURING_FOLDER}",
        kind="evaluate",
        experiment=training.experiment,
        run=training.run,
        work_group=training.work_group,
        user_name=training.user_name,
        folder=training.folder / DURING_FOLDER,
        config=derived.config,
        origins=derived.origins,
        data=data or PreparedData(),
    )
