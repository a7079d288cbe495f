"""Plans a run: each stage is RUN, RESUME, CACHED or STALE, told in about a second and without torch.

A config or data that can't be used is refused before anything is written or a process is started.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.config.checks.device import device_problems
from titanflow.config.checks.unusable_paths import named_by
from titanflow.config.device import stage_device
from titanflow.config.division import validation_note
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.keys.experiment import name_problem
from titanflow.config.means.recipe import means_of
from titanflow.config.means.unlike import unlike_models
from titanflow.config.module import Module
from titanflow.config.overrides import Setting, parameter_settings, parse_settings
from titanflow.config.settled.precision import keep_precision
from titanflow.config.stages import BASE, base_folder
from titanflow.nightly.night import Night
from titanflow.nightly.planning import as_night, continued
from titanflow.planning.cluster.job_words import job_words
from titanflow.planning.data_mistakes import check_streams
from titanflow.planning.data_source import data_origins, unstated_licenses
from titanflow.planning.evaluation.best import best_notes, check_best, wanted_scores
from titanflow.planning.evaluation.during import during_modules, during_run
from titanflow.planning.evaluation.models import check_models, check_publishable
from titanflow.planning.evaluation.tasks import check_during, check_tasks
from titanflow.planning.forecast.forecasts import add_forecasts
from titanflow.planning.inputs import scoring_fingerprint, stage_inputs
from titanflow.planning.launch import command, environment
from titanflow.planning.launch_checks import check_launches
from titanflow.planning.origin.gguf_tokenizer import gguf_tokenizer_problems
from titanflow.planning.origin.initial_weights import check_beginnings, with_weights
from titanflow.planning.preparation import Preparation
from titanflow.planning.stage_plan import Plan, StagePlan, training_notes
from titanflow.planning.state import StageStates, parents
from titanflow.publish.private import data_secrets
from titanflow.publish.settings import read_settings
from titanflow.runs.contract import DURING_FOLDER, PREPARE, PreparedData, StageRun
from titanflow.runs.manifest import Manifest

DEFAULT_RUN = "main"


def make_plan(
    experiment: str,
    configs: str | Path | None = None,
    run: str | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    runs_here: bool = True,
) -> Plan:
    """Plans a run of an experiment, given by name, file or JSON.

    ``overrides`` are ``dotted.key=value`` texts of a command line, or a mapping of a flow's parameters. A stage that
    its device can't run or hold is refused. With ``runs_here`` False, if only this machine falls short, there is a
    warning instead: the stage may run on another.

    Raises:
        ConfigError: the experiment can't be used; carries every mistake.
        DataError: its data can't.
    """
    overrides = overrides if isinstance(overrides, Mapping) else list(overrides)
    settings = _settings(overrides)
    config = load_experiment(experiment, configs, settings)
    config, night = as_night(config, run, lambda more: load_experiment(experiment, configs, [*more, *settings]))
    name = _run_name(config, run)
    anew = functools.partial(make_plan, experiment, configs, run, overrides, runs_here)
    with named_by(config):
        return _plan(config, night, name, runs_here, anew)


def _plan(config: Experiment, night: Night | None, name: str, runs_here: bool, anew: Callable[[], Plan]) -> Plan:
    workspace = config.workspace.resolve()
    check_workspace(workspace, config.origins.get("workspace", ""))
    folder = workspace / config.exp_name / name
    manifest = Manifest.open(folder)
    for module in config.modules.values():
        keep_precision(module, folder / module.name)
    preparation = Preparation.of(config, workspace, manifest)
    if unlike := list(unlike_models(config.modules, preparation.tokenizers.folders)):
        raise ConfigError(unlike)
    derived, scored = {module.name: module for module in during_modules(config)}, []
    best_by = wanted_scores(config)
    states = StageStates(manifest, preparation, config.spec.on_stale)
    stages: list[StagePlan] = []
    # Prepare is planned last: a model of the Hub is fetched only for a stage that still loads it.
    for stage in (*config.modules, PREPARE):
        if stage == PREPARE:
            preparation.bring_weights(config, {plan.stage for plan in stages if plan.state != "CACHED"})
        stage_run = _stage_run(stage, config, name, folder, preparation)
        if stage_run is None:
            continue
        made_of = {plan.stage: plan.run.fingerprint for plan in parents(stage_run, stages)}
        before = manifest.stages.get(stage)
        inputs = stage_inputs(stage_run, made_of, config, preparation, before.inputs if before else None)
        goes_on = night is not None and stage == continued(config)
        if parent := night.parent if night is not None and goes_on else None:
            inputs.add("night.parent", parent.digest, "the night before")
        stage_run.fingerprint = inputs.fingerprint
        found = states.of(stage_run, inputs, stages)
        # Later stages are made from the kept output, so use its fingerprint.
        stage_run.fingerprint = found.made_from or stage_run.fingerprint
        plan = StagePlan(stage, found.state, found.reason, stage_run, inputs=inputs, changes=found.changes)
        plan.extension = found.extension
        if night is not None and goes_on:
            plan.continues = {f"{parent.run}/{stage}": parent.digest} if parent else {}
            plan.reason += f"; {night.described}" if found.state == "RUN" else ""
        if found.state == "RUN" and (note := validation_note(config.modules.get(stage))):
            plan.reason += f"; {note}"
        if found.state in ("RUN", "RESUME", "EXTEND"):
            chosen = config.modules[stage].chosen.values() if stage in config.modules else ()
            plan.reason = "; ".join([plan.reason, *training_notes(stage_run), *chosen])
        plan.reason = "; ".join([plan.reason, *best_notes(stage_run, stages)])
        if plan.is_job and found.state != "CACHED":
            plan.reason += f"; as {job_words(stage_run.config['launcher'])}"
        if plan.pool and found.state != "CACHED":
            plan.reason += f"; in pool {plan.pool}"
        plan.command, plan.env, plan.kept = command(stage_run), environment(stage_run, config), found.kept
        if evaluation := derived.get(f"{stage}.{DURING_FOLDER}"):
            plan.during = during_run(stage_run, evaluation, preparation.data.get(evaluation.name))
            plan.during.fingerprint = scoring_fingerprint(plan.during, evaluation)
            plan.best = best_by.get(stage, "")
            scored += [(evaluation, plan.during)] if plan.state != "CACHED" else []
        stages.append(plan)
    stages.sort(key=lambda plan: plan.stage != PREPARE)
    check_streams(config.modules[plan.stage] for plan in stages if plan.state != "CACHED" and plan.stage != PREPARE)
    check_beginnings(stages, preparation.initial, config)
    _check_devices(stages, config, runs_here)
    config.warnings += check_tasks(stages, config.modules)
    check_during(scored, config.modules)
    check_best(config, derived, stages)
    config.warnings += check_launches(stages, runs_here)
    for plan in stages:
        config.warnings += unstated_licenses(plan.run) if plan.state != "CACHED" else []
    add_forecasts(stages, config, workspace, runs_here)
    return Plan(config.exp_name, name, folder, stages, config, anew, night)


def _check_devices(stages: list[StagePlan], config: Experiment, runs_here: bool) -> None:
    refused: list[Problem] = []
    for plan in stages:
        module = config.modules.get(plan.stage)
        if module is None or plan.state == "CACHED":
            continue
        launcher = module.config.get("launcher") or {}
        device = stage_device(launcher)
        problems = device_problems(module, device) if device is not None else []
        is_here = runs_here and not launcher.get("pool")
        if is_here or launcher.get("device") != "auto":
            refused += problems
        else:
            config.warnings += [f"on this machine a run would be refused: {problem}" for problem in problems]
    if refused:
        raise ConfigError(refused)


def run_folder(
    experiment: str,
    configs: str | Path | None = None,
    run: str | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
) -> Path:
    """The folder of an experiment's run, even if its data is gone; the arguments are those of :func:`make_plan`.

    Raises:
        ConfigError: the experiment or the name can't be used.
    """
    config = load_experiment(experiment, configs, _settings(overrides))
    return config.workspace.resolve() / config.exp_name / _run_name(config, run)


def _settings(overrides: Iterable[str] | Mapping[str, Any]) -> list[Setting]:
    return parameter_settings(overrides) if isinstance(overrides, Mapping) else parse_settings(overrides)


def _run_name(config: Experiment, run: str | None) -> str:
    """The name of a run; a night's is its day."""
    return check_run_name(run or config.spec.nightly.date or DEFAULT_RUN)


def check_workspace(workspace: Path, origin: str) -> None:
    there = next(path for path in (workspace, *workspace.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        found = f"{there} can't be written to" if there.is_dir() else f"{there} is no folder"
        raise ConfigError(Problem(f"{workspace}: {found}", "workspace", origin, "a folder that can be made"))


def check_run_name(name: str) -> str:
    """Returns a run's name if it is fit for a folder and for a tag.

    Raises:
        ConfigError: it isn't.
    """
    if problem := name_problem(name, "--run"):
        raise ConfigError(problem)
    return name


def _stage_run(stage: str, config: Experiment, run: str, folder: Path, preparation: Preparation) -> StageRun | None:
    common: dict[str, Any] = {"stage": stage, "experiment": config.exp_name, "run": run, "folder": folder / stage}
    common |= config.who
    if stage == PREPARE:
        own = ((key.partition("."), origin) for key, origin in config.origins.items())
        origins = {key: origin for (section, _, key), origin in own if section == PREPARE}
        return StageRun(**common, config=preparation.config, origins=origins) if preparation.folders() else None
    module = config.modules[stage]
    if module.kind == "evaluate":
        check_models(module, config, folder.parent.parent)
        for publish in config.of_kind("publish"):
            if publish.config["evaluation"] == module.name:
                check_publishable(module, publish)
    stage_run = StageRun(
        **common,
        kind=module.kind,
        config=with_weights(module.config, preparation.initial.get(module.name)),
        model_overrides=module.model_overrides,
        origins=module.origins,
        tokenizer=preparation.tokenizers.folders.get(module.name),
        data=preparation.data.get(module.name, PreparedData()),
        base=module.base.folder or folder / module.base.stage if module.base else None,
        stages=_stage_folders(module, config, folder),
    )
    if module.kind == "publish":
        stage_run.trained_on = data_origins(config)
        if problems := data_secrets(config.modules.values()):
            raise ConfigError(problems)
        if problems := gguf_tokenizer_problems(module, config, preparation.tokenizers):
            raise ConfigError(problems)
        read_settings(stage_run)
    return stage_run


def _stage_folders(module: Module, config: Experiment, folder: Path) -> dict[str, Path]:
    """The folders of a run's other stages, of what an evaluation calls the base, and of the means that it makes.

    ``folder`` is the run's.
    """
    found = {name: folder / name for name in config.modules if name != module.name}
    if module.kind == "evaluate" and (base := base_folder(config.modules, folder)):
        found[BASE] = base
    scored = config.modules.get(module.config["evaluation"]) if module.kind == "publish" else module
    return found | {name: folder / name for name in (means_of(scored.config) if scored else ())}
