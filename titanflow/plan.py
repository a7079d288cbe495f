"""What a run would do: each stage RUN, RESUME or CACHED, in about a second and without torch.

Raises before anything is written or a process is started where a config or its data can't be used.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from titanflow.checkpoints import complete_folders
from titanflow.config.device import stage_device
from titanflow.config.device_checks import device_problems
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.module import Module
from titanflow.config.overrides import Setting, parameter_settings, parse_settings
from titanflow.errors import ConfigError, Problem
from titanflow.evaluated import BASE, check_models, check_publishable
from titanflow.launch import command, environment
from titanflow.manifest import Manifest, checkpoint_digest
from titanflow.night import as_night
from titanflow.outside_base import read_base
from titanflow.preparation import Preparation
from titanflow.publish import read_settings
from titanflow.stage import (
    ERROR_FILE,
    RESULT_FILE,
    RUN_FILE,
    STAGES,
    PublishResult,
    StageName,
    StageRun,
    read_result,
    write_text_atomically,
)
from titanflow.stage_fingerprint import stage_fingerprint

StageState = Literal["RUN", "RESUME", "CACHED"]
DEFAULT_RUN = "main"
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass
class StagePlan:
    """What one stage would do, and all that it needs for it."""

    stage: StageName
    state: StageState
    reason: str
    run: StageRun
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Plan:
    """A run: its folder and its stages, in the order in which they run."""

    experiment: str
    run: str
    folder: Path
    stages: list[StagePlan]
    config: Experiment

    def stage(self, name: str) -> StagePlan | None:
        """A stage by its name, or None where the experiment has none."""
        return next((stage for stage in self.stages if stage.stage == name), None)

    @property
    def is_cached(self) -> bool:
        """Whether nothing is left to do."""
        return all(stage.state == "CACHED" for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        """The plan as ``titanflow plan --json`` prints it."""
        return {
            "experiment": self.experiment,
            "run": self.run,
            "folder": str(self.folder),
            "night": self.config.night.model_dump(mode="json") if self.config and self.config.night else None,
            "stages": [
                {
                    "stage": stage.stage,
                    "state": stage.state,
                    "reason": stage.reason,
                    "fingerprint": stage.run.fingerprint,
                    "folder": str(stage.run.folder),
                    "command": stage.command,
                }
                for stage in self.stages
            ],
        }

    def write(self) -> None:
        """Writes ``plan.json`` into the run's folder, and of a night that it begins."""
        if self.config is not None and self.config.night is not None and not self.is_cached:
            self.config.night = self.config.night.begin(self.folder)
        write_text_atomically(self.folder / "plan.json", json.dumps(self.as_json(), indent=2) + "\n")


def make_plan(
    experiment: str,
    configs: str | Path | None = None,
    run: str | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    runs_here: bool = True,
) -> Plan:
    """Plans a run of an experiment, given by name or file.

    ``overrides`` are ``dotted.key=value`` texts of a command line, or a mapping of a flow's parameters. What the
    device can't do is refused; with ``runs_here`` False, where only this machine's lack of it speaks against it,
    that becomes a warning: the stage may run on another.

    Raises:
        ConfigError: the experiment can't be used; carries every mistake.
        DataError: its data can't.
    """
    is_mapping = isinstance(overrides, Mapping)
    settings: list[Setting] = parameter_settings(overrides) if is_mapping else parse_settings(overrides)  # type: ignore[arg-type]
    config = load_experiment(experiment, configs, settings)
    config = as_night(config, run, lambda more: load_experiment(experiment, configs, [*more, *settings]))
    name = check_run_name(run or (config.night.run if config.night else DEFAULT_RUN))
    workspace = config.workspace.resolve()
    folder = workspace / config.exp_name / name
    preparation = Preparation.of(config, workspace)
    manifest = Manifest.open(folder)
    stages: list[StagePlan] = []
    for stage in STAGES:
        stage_run = _stage_run(stage, config, name, folder, preparation)
        if stage_run is not None:
            stage_run.fingerprint = stage_fingerprint(stage_run, [plan.run for plan in stages], config, preparation)
            state, reason = _state(stage_run, manifest, stages, preparation)
            if stage == "pretrain" and config.night is not None and state == "RUN":
                reason += f"; {config.night.described}"
            stages.append(
                StagePlan(stage, state, reason, stage_run, command(stage_run), environment(stage_run, config))
            )
    _check_devices(stages, config, runs_here)
    return Plan(config.exp_name, name, folder, stages, config)


def _check_devices(stages: list[StagePlan], config: Experiment, runs_here: bool) -> None:
    refused: list[Problem] = []
    for plan in stages:
        module = config.stage(plan.stage)
        if module is None or plan.state == "CACHED":
            continue
        launcher = module.config.get("launcher") or {}
        device = stage_device(launcher)
        problems = device_problems(module, device) if device is not None else []
        if runs_here or launcher.get("device") != "auto":
            refused += problems
        else:
            config.warnings += [f"on this machine a run would be refused: {problem}" for problem in problems]
    if refused:
        raise ConfigError(refused)


def run_folder(
    experiment: str, configs: str | Path | None = None, run: str | None = None, settings: Iterable[str] = ()
) -> Path:
    """The folder of an experiment's run, whether or not its data is still there.

    Raises:
        ConfigError: the experiment or the name can't be used.
    """
    config = load_experiment(experiment, configs, parse_settings(settings))
    return config.workspace.resolve() / config.exp_name / check_run_name(run or DEFAULT_RUN)


def check_run_name(name: str) -> str:
    """A run's name, fit for a folder and for a tag.

    Raises:
        ConfigError: it isn't.
    """
    if RUN_NAME.fullmatch(name):
        return name
    raise ConfigError(Problem(f"found {name!r}", key="--run", expected="letters, digits, dots, dashes, underscores"))


def _stage_run(
    stage: StageName, config: Experiment, run: str, folder: Path, preparation: Preparation
) -> StageRun | None:
    common: dict[str, Any] = {"stage": stage, "experiment": config.exp_name, "run": run, "folder": folder / stage}
    if stage == "prepare":
        return StageRun(**common, config=preparation.config) if preparation.folders() else None
    module = config.stage(stage)
    if module is None:
        return None
    stages = {other.stage: folder / other.stage for other in config.modules.values() if other.stage != stage}
    sft = config.stage("sft")
    if stage == "evaluate":
        check_models(module, config, folder.parent.parent)
        if publish := config.stage("publish"):
            check_publishable(module, publish)
        if sft is not None and sft.base is not None and sft.base.folder is not None:
            stages[BASE] = sft.base.folder
    stage_run = StageRun(
        **common,
        config=_with_paths(module, config),
        model_overrides=module.model_overrides,
        origins=module.origins,
        tokenizer=preparation.tokenizer_of(module),
        data=preparation.data_of(module),
        base=_base(module, config, folder),
        stages=stages,
    )
    if stage == "publish":
        read_settings(stage_run)
    return stage_run


def _with_paths(module: Module, config: Experiment) -> dict[str, Any]:
    """The module's config with its task folder found: as it stands, or in the config tree."""
    named = module.config.get("include_path")
    if not named:
        return module.config
    found = next((path for path in (Path(named), config.tree.root / named) if path.is_dir()), None)
    if found is None:
        raise ConfigError(
            Problem(
                f"no such folder: {named}",
                key=f"{module.name}.include_path",
                origin=module.origins.get("include_path", ""),
                expected=f"a folder, also of {config.tree.root}",
            )
        )
    return {**module.config, "include_path": str(found.resolve())}


def _base(module: Module, config: Experiment, folder: Path) -> Path | None:
    if module.base is None:
        return None
    return module.base.folder or folder / config.modules[module.base.stage].stage


def _state(
    run: StageRun, manifest: Manifest, earlier: list[StagePlan], preparation: Preparation
) -> tuple[StageState, str]:
    if run.stage == "prepare":
        return _prepare_state(run, preparation)
    again = _runs_again(run, manifest, earlier)
    if again:
        return "RUN", f"after {again}"
    if manifest.is_done(run.stage, run.fingerprint):
        again = _done_again(run)
        return ("RUN", again) if again else ("CACHED", "nothing changed")
    step = newest_checkpoint(run.folder)
    if step is not None and _is_same_run(run):
        return "RESUME", f"from step {step}"
    if (run.folder / RUN_FILE).exists():
        return "RUN", "its output is gone" if _is_same_run(run) else "its inputs changed"
    return "RUN", "new"


def _prepare_state(run: StageRun, preparation: Preparation) -> tuple[StageState, str]:
    missing, total = preparation.missing(), len(preparation.folders())
    if missing:
        return "RUN", f"{len(missing)} of {total} to prepare"
    if not (run.folder / RESULT_FILE).exists():
        return "RUN", f"to note what other runs prepared: {total} of {total}"
    return "CACHED", f"{total} prepared"


def _runs_again(run: StageRun, manifest: Manifest, earlier: list[StagePlan]) -> str:
    """The last stage before this one that isn't cached, and whose result this one reads; empty if there is none."""
    if run.stage == "sft" and run.base != manifest.folder / "pretrain":
        return ""
    again = [plan.stage for plan in earlier if plan.stage != "prepare" and plan.state != "CACHED"]
    return again[-1] if again else ""


def _done_again(run: StageRun) -> str:
    """Why a finished stage is run again although nothing changed that it was made from; empty where it isn't."""
    if run.stage == "evaluate" and run.config["log_samples"] and not any(run.folder.glob("samples_*.jsonl")):
        return "its samples were not kept"
    result = read_result(run.folder) if run.stage == "publish" else None
    status = result.status if isinstance(result, PublishResult) else "published"
    # What a model is compared with may have changed.
    return {"held back": "held back by the gate: ask again", "dry run": "it was a dry run"}.get(status, "")


def _is_same_run(run: StageRun) -> bool:
    path = run.folder / RUN_FILE
    return path.exists() and StageRun.read(path).fingerprint == run.fingerprint


def newest_checkpoint(folder: Path) -> int | None:
    """The step of the newest complete checkpoint below a stage's folder: one whose ``.metadata`` was written."""
    return next(iter(complete_folders(folder / "checkpoint")), None)


def begin_stage(plan: StagePlan) -> None:
    """Makes a stage's folder ready: what other inputs made is moved aside, ``run.yaml`` is written.

    Nothing that was finished is lost: the old folder becomes ``superseded/<stage>-<n>`` of its run.
    """
    run = plan.run
    if plan.state == "RUN" and run.folder.exists():
        _move_aside(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    for name in (ERROR_FILE, RESULT_FILE):
        (run.folder / name).unlink(missing_ok=True)
    if run.base is not None:
        base = read_base(run.base)
        # What a resumed stage began on stays on record: LoRA refuses another.
        begun = StageRun.read(run.folder / RUN_FILE).base_digest if plan.state == "RESUME" else ""
        run.base_digest = begun or (checkpoint_digest(base.checkpoint) if base.checkpoint else "")
    run.write()


def discard_if_new(plan: StagePlan) -> None:
    """Takes back what a refused prepare step wrote: bad input leaves nothing behind.

    The run's folder goes where this was its first step; one that holds other stages stays.
    """
    folder = plan.run.folder
    shutil.rmtree(folder, ignore_errors=True)
    run = folder.parent
    if not any(path.is_dir() for path in run.iterdir()):
        shutil.rmtree(run)
        for above in (run.parent, run.parent.parent / "data", run.parent.parent):
            if above.is_dir() and not any(above.iterdir()):
                above.rmdir()


def _move_aside(folder: Path) -> None:
    if not (folder / RUN_FILE).exists():
        return
    superseded = folder.parent / "superseded"
    superseded.mkdir(exist_ok=True)
    number = 1 + sum(1 for _ in superseded.glob(f"{folder.name}-*"))
    shutil.move(folder, superseded / f"{folder.name}-{number}")
