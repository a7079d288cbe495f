"""The keys of an experiment's file; the string below a field is its documentation."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any, Literal

from titanflow.common.errors import Problem
from titanflow.config.keys.launcher import Launcher, PrepareLauncher
from titanflow.config.keys.on_stale import OnStale
from titanflow.runs.tracker_record import LONGEST_TAG

WHO = ("work_group", "user_name")
"""The keys that say whose a run is."""
EXP_NAME = "{exp_name}"
"""What stands for the experiment's name in `publish.folder`."""
BASE_KEYS = ("base", "base_revision")
"""The keys of a training's config that stand in its entry, beside the names of its files."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_NAME = 100


@dataclass
class ModuleSpec:
    """One entry of an experiment's `modules`."""

    stage: str | None = None
    """What the module does: pretrain, sft, prefer, evaluate or publish. Left out, its name says so."""
    base: str | dict[str, Any] | None = None
    """The model that the training starts from: an earlier module, the folder of a finished stage, a model in
    transformers' format, or a mean of stages. Left out, the module file's; without one an sft starts from `pretrain`, a
    pretrain from nothing; a prefer needs one."""
    base_revision: str | None = None
    """The base's revision on the Hub: a branch, a tag or a commit."""
    framework: str | None = None
    """torchtitan for a training stage, lm_eval for evaluate, huggingface_hub for publish."""
    config: str | None = None
    """The module file: a stage's defaults, YAML or torchtitan's TOML. Left out, the stage's own; null, none."""
    model: str | dict[str, Any] | None = None
    """The model file, or in its place the section `model`: {name: llama3, flavor: debugmodel}."""
    data: str | dict[str, Any] | None = None
    """The data file, or in its place the section `data`."""
    validation_data: str | dict[str, Any] | None = None
    """The data file of the section `validation_data`, or that section."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Values that this experiment sets differently from the files above."""
    params: dict[str, Any] = field(default_factory=dict)
    """`model_overrides`: fields of the model's arguments, each under `model.`"""


@dataclass
class Retries:
    """How often a failed stage is started again, by the cause; it goes on from its newest checkpoint."""

    lost: int = 2
    """After failures that another try may mend: a killed process, a rank that hung, a broken connection. Never after
    a mistake in the config, a loss that is no number, or a device out of memory."""
    delay: float = 10.0
    """Seconds before the first of these starts; doubled for each further one."""


@dataclass
class Nightly:
    """What a night does, beside what every run does."""

    date: str | None = None
    """The day that a night belongs to, as 2026-11-21: makes a run a night's, and names it. The nightly deployment sets
    it; by hand it is for `--set nightly.date=2026-11-21`, never for a file."""
    start: Literal["anew", "continue"] = "anew"
    """Train from the beginning, or go on from the weights of the newest earlier night whose pretraining finished, with
    a fresh optimizer and the rows that follow those trained on."""
    keep: int | None = None
    """Nights before the last one that stay on disk; unset, all. What is published, what the next night may continue
    from, and what another run builds on always stay."""
    catch_up: bool = False
    """Whether a missed night (the machine was off) is run as soon as it can be, the newest alone; otherwise a night
    that would begin over an hour late is left out."""


@dataclass
class Notify:
    """Who is told of what happens to a run."""

    webhook_block: str | None = None
    """Name of a Prefect webhook block that is called with JSON; unset, nobody is told."""
    on: list[Literal["failed", "not started", "published", "proposed", "held back"]] = field(
        default_factory=lambda: ["failed", "not started", "published", "proposed", "held back"]
    )
    """The events to tell of: failed (crashed, too), not started (an hour after its time), published, proposed (in a
    pull request) and held back."""


@dataclass
class Prepare:
    """How the data is prepared, before any stage."""

    launcher: PrepareLauncher = field(default_factory=PrepareLauncher)
    """The processes of the prepare step. It takes nothing from the experiment's `launcher`: it needs no GPU."""


@dataclass
class ExperimentSpec:
    """The experiment file itself."""

    work_group: str = ""
    """The team: in the manifest, the report, the labels of the Prefect run, and W&B's tags. Changes no result."""
    user_name: str = ""
    """The user, in the same places."""
    exp_name: str = ""
    """What the experiment is called: a folder in the workspace. Unset, the name of its file."""
    workspace: str = "./runs"
    """The folder of runs and prepared data; relative to the working directory."""
    launcher: Launcher = field(default_factory=Launcher)
    """The processes of every stage; a module's own `launcher` goes before it."""
    prepare: Prepare = field(default_factory=Prepare)
    """How the data is prepared."""
    only: list[str] = field(default_factory=list)
    """The stages that a run makes, with those that they are made from; unset, all."""
    on_stale: OnStale = "error"
    """What happens to a stage that was made from other inputs: `error` refuses the run and says what changed, `rerun`
    makes it again (its old output moves to superseded/), `keep` uses its old output, and the manifest says so."""
    price_per_hour: float | None = None
    """What an hour of one device costs, in a currency of your own; the forecast then has a cost."""
    retries: Retries = field(default_factory=Retries)
    """When a failed stage is started again."""
    nightly: Nightly = field(default_factory=Nightly)
    """What the nightly deployment does."""
    notify: Notify = field(default_factory=Notify)
    """Who is told of what happens to a night."""
    ignore: list[str] | str = field(default_factory=list)
    """Keys that may stand in the files although nothing reads them: left out, and reported. `primus` stands for all
    that only Primus reads."""
    modules: dict[str, Any] = field(default_factory=dict)
    """The stages, each under a name of its own; their order is that in which they train."""


def name_problem(name: str, key: str, origin: str = "", hint: str = "") -> Problem | None:
    """Why a name can't be a folder's and a tag's; None where it can. A folder must not lead out of the workspace."""
    if _NAME.fullmatch(name) and len(name) <= _LONGEST_NAME:
        return None
    expected = f"at most {_LONGEST_NAME} letters (a to z), digits, dots, dashes, underscores; first a letter or a digit"
    return Problem(f"found {name!r}", key, origin, expected, hint)


def fitting_name(name: str) -> str:
    """A name that :func:`name_problem` takes, as near to the given one as can be: ``Übung 1`` becomes ``Ubung-1``."""
    plain = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain)[:_LONGEST_NAME].strip("-._") or "mine"


def tag_problem(text: str, key: str, origin: str = "") -> Problem | None:
    """Why a text can't be a tag in W&B; None where it can, or is empty."""
    if len(text) <= LONGEST_TAG and text.isprintable():
        return None
    return Problem(f"found {text!r}", key, origin, f"a line of at most {LONGEST_TAG} characters, which W&B's tags have")
