"""The weights that a pretraining begins with: a checkpoint, or with ``checkpoint.initial_load_in_hf`` a model in
transformers' format, in a folder or on the Hub.

Only a stage that hasn't begun needs them. A finished or resumed stage can be planned without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.architectures.config_json import UnreadArchitectureError
from titanflow.architectures.families.registry import family_of
from titanflow.architectures.hf_snapshot import names_repository
from titanflow.architectures.huggingface import check_weights_there, describe_repository, identity, is_hugging_face
from titanflow.architectures.outside_base import trained_as
from titanflow.common.errors import ConfigError, Problem
from titanflow.common.files import expanded
from titanflow.config.keys.repositories import misplaced_revision, revision, value
from titanflow.config.module import Module
from titanflow.planning.origin.hub_record import WEIGHTS, recorded
from titanflow.runs.checkpoints import METADATA, complete_folders, flaw
from titanflow.runs.manifest import Manifest
from titanflow.runs.training import Training

if TYPE_CHECKING:
    from titanflow.config.experiment import Experiment
    from titanflow.planning.stage_plan import StagePlan

PATH = "checkpoint.initial_load_path"
ASSETS = "model.hf_assets_path"
FORMAT = "checkpoint.initial_load_in_hf"
CHECKPOINT = "a step-N folder, or a finished stage's"
ARGUMENTS = (
    *("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "vocab_size", "enable_weight_tying"),
    *("norm_eps", "qk_norm", "rope_theta", "rope_scaling_args"),
)
"""The model's arguments that its weights were trained with, as ``config.json`` has each."""


@dataclass(frozen=True)
class InitialWeights:
    """Where the weights lie, or where the prepare step fetches them to from the Hub.

    ``key`` names them in the config. ``content`` is their part of a stage's fingerprint: the repository's commit, or a
    folder's files; nothing for a checkpoint. ``folder`` is None if they can't be had. ``problems`` say why no stage
    could begin with them.
    """

    key: str
    folder: Path | None = None
    content: str = ""
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, module: Module, manifest: Manifest) -> InitialWeights | None:
        """The weights that a module begins with; None if it starts from random ones, or from a base.

        If they can't be had any more, ``content`` is taken from the stage's record.
        """
        in_hf = bool(module.config["checkpoint"]["initial_load_in_hf"])
        key = PATH if value(module, PATH) or not in_hf else ASSETS
        named = value(module, key)
        if module.base is not None or not (named or in_hf):
            return None
        try:
            if not named:
                expected = f"a folder with safetensors, or owner/name on the Hub, in {PATH} or {ASSETS}"
                raise ConfigError(Problem("found true, and nothing names the weights", FORMAT, expected=expected))
            if in_hf and names_repository(named):
                folder = describe_repository(named, revision(module, key))
            else:
                folder = _local(named, in_hf, misplaced_revision(key, named))
            return cls(key, folder, identity(folder) if in_hf else "", tuple(_other_model(folder, module, key)))
        except ConfigError as error:
            problems = tuple(_placed(problem, module, key) for problem in error.problems)
            return cls(key, None, recorded(module, key, manifest).get(WEIGHTS, ""), problems)

    @property
    def parts(self) -> dict[str, str]:
        return {f"{self.key}: {WEIGHTS}": self.content} if self.content else {}


def with_weights(config: dict[str, Any], initial: InitialWeights | None) -> dict[str, Any]:
    """A stage's config with the full path of its initial weights, whichever key named them."""
    if initial is None or initial.folder is None or not initial.folder.exists():
        return config
    return {**config, "checkpoint": {**config["checkpoint"], "initial_load_path": str(initial.folder.absolute())}}


def check_beginnings(
    stages: Iterable[StagePlan], initial: Mapping[str, InitialWeights], experiment: Experiment
) -> None:
    """Refuses a stage that has yet to begin, if it can't have its initial weights."""
    begins = ("RUN", "STALE") if experiment.spec.on_stale == "rerun" else ("RUN",)
    modules = [experiment.modules.get(plan.stage) for plan in stages if plan.state in begins]
    found = [initial[module.name] for module in modules if module is not None and module.name in initial]
    if problems := [problem for weights in found for problem in weights.problems]:
        raise ConfigError(problems)


def _local(named: str, in_hf: bool, hint: str) -> Path:
    folder = expanded(named)
    if in_hf and folder.is_dir():
        check_weights_there(folder)
    if not in_hf and is_hugging_face(folder):
        message = f"{named} is in transformers' format"
        raise ConfigError(Problem(message, expected=CHECKPOINT, hint=f"set {FORMAT}: true"))
    if folder.exists() or "://" in named:
        if not in_hf and folder.exists():
            _check_checkpoint(folder, named)
        return folder
    message = f"{named} isn't there" + ("" if folder.is_absolute() else f" (looked for it in {Path.cwd()})")
    if in_hf:
        expected = "a folder that transformers loads, or owner/name on the Hub"
        raise ConfigError(Problem(message, expected=expected, hint=hint))
    hint = f"a model of the Hub, owner/name, is in transformers' format: {FORMAT}: true"
    raise ConfigError(Problem(message, expected=CHECKPOINT, hint=hint))


def _check_checkpoint(folder: Path, named: str) -> None:
    """Refuses a folder that is neither a ``step-N`` folder whose save ended, nor a finished stage's."""
    training = Training.of(folder)
    if training is not None and training.result is not None:
        folder = training.result.checkpoint
    elif training is not None:
        found, hint = f"{named} is a stage that hasn't finished", _newest(folder / "checkpoint")
        raise ConfigError(Problem(found, expected=CHECKPOINT, hint=hint))
    lacks = flaw(folder) if (folder / METADATA).exists() else f"it has no {METADATA}"
    if lacks:
        hint = _newest(folder, folder / "checkpoint", folder.parent)
        raise ConfigError(Problem(f"{folder} holds no whole checkpoint: {lacks}", expected=CHECKPOINT, hint=hint))


def _newest(*places: Path) -> str:
    found = (path for place in places for _, path in complete_folders(place))
    return next((f"the newest whole one is {path}" for path in found), "")


def _other_model(path: Path, module: Module, key: str) -> Iterator[Problem]:
    """Arguments that differ between the module's model and the one whose weights lie there; others aren't checked.

    Few would show in names and shapes once the stage starts: a changed theta or router never would.
    """
    try:
        given = trained_as(path)
    except UnreadArchitectureError:
        # Only torchtitan's adapters can read such a family's weights.
        given = None
    name, own = module.config["model"]["name"], module.model_args
    if given is None or not own:
        return
    found = f"found the weights of {given.stage}"
    if given.model_name not in (name, family_of(name).dense):
        yield module.problem(key, f"{found}, a {given.model_name}, and the model is a {name}")
        return
    for argument, theirs in given.other_arguments(own).items():
        # What config.json doesn't say is a flavor's, and no fact of the weights.
        if argument in ARGUMENTS or not given.in_hf:
            message = f"{found}, whose {argument} is {theirs!r}, and the model's is {own[argument]!r}"
            yield module.problem(key, message, hint=f"set model.{argument}: {theirs!r}, or begin with other weights")


def _placed(problem: Problem, module: Module, key: str) -> Problem:
    if problem.key == FORMAT:
        return replace(problem, key=f"{module.name}.{FORMAT}", origin=module.origins.get(FORMAT, ""))
    message = ": ".join(part for part in (problem.origin, problem.key, problem.message) if part)
    return replace(problem, key=f"{module.name}.{key}", origin=module.origins.get(key, ""), message=message)
