"""``titanflow.plan``: what a run would do, as an object that shows itself."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from titanflow.api.arguments import Arguments, ExperimentLike, PathLike
from titanflow.common.console import Output
from titanflow.config.keys.on_stale import OnStale
from titanflow.files.caches import move_unwritable
from titanflow.planning import stage_plan
from titanflow.planning.forecast.table import forecast_table
from titanflow.planning.stage_plan import StagePlan
from titanflow.planning.view import inheritance_tables, plan_table

PRE = '<pre style="line-height: 1.3; overflow-x: auto">{code}</pre>'
"""The notebook's own font and colours; long rows scroll."""


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run would do; ``print`` shows it as ``titanflow plan`` does, a notebook as HTML.

    Attributes:
        experiment: the experiment's name.
        run: the run's name.
        folder: the run's folder, which needn't exist yet.
        stages: the stages in order. Each has ``stage`` (its name), ``state`` (RUN, RESUME, CACHED or STALE),
            ``reason``, ``changes`` (``key``, ``old``, ``new`` and ``origin`` of each value that makes it STALE),
            ``command``, and ``forecast`` (``seconds``, ``cost``, ``parameters``, …; None where nothing is left to do).
        warnings: what the config says that a run would ignore, and what may go wrong.
    """

    experiment: str
    run: str
    folder: Path
    stages: list[StagePlan]
    warnings: list[str]
    _made: stage_plan.Plan

    @classmethod
    def of(cls, made: stage_plan.Plan) -> Plan:
        """The same of the plan that the flow follows."""
        ignored = [f"ignored: {line}" for line in made.config.ignored]
        warned = [f"warning: {line}" for line in made.config.warnings]
        return cls(made.experiment, made.run, made.folder, made.stages, ignored + warned, made)

    @property
    def is_cached(self) -> bool:
        """Whether nothing is left to do."""
        return self._made.is_cached

    def as_json(self) -> dict[str, Any]:
        """The plan as ``titanflow plan --json`` prints it, in plain dicts and lists."""
        return self._made.as_json()

    def __str__(self) -> str:
        return self._printed().export_text().rstrip()

    # A prompt and a notebook without HTML show an object by this.
    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._printed().export_html(inline_styles=True, code_format=PRE)

    def _printed(self) -> Output:
        console = Output(file=io.StringIO())
        console.record = True
        title = Text.assemble((f"{self.experiment} / {self.run}", "bold"), f"   {self.folder}")
        shown: list[RenderableType] = [
            title,
            *(Text(line, style="yellow") for line in self.warnings),
            plan_table(self._made),
            forecast_table(self.stages),
            inheritance_tables(self._made),
        ]
        for one in shown:
            console.print(one)
        return console


def plan(
    experiment: ExperimentLike = "stdlib",
    *,
    configs: PathLike | None = None,
    run: str | None = None,
    overrides: Mapping[str, object] | None = None,
    workspace: PathLike | None = None,
    on_stale: OnStale | None = None,
) -> Plan:
    """Says what a run would do, as ``titanflow plan``: in about a second, and nothing is written.

    Args:
        experiment: an experiment's name, its file, or a mapping that says what such a file says. Files that a mapping
            names are looked for in the current folder, then in ``configs``, then among titanflow's own.
        configs: a folder of configs, or of what differs from the shipped ones; ``./configs`` if there is one.
        run: the run's name; ``main`` unless given.
        overrides: dotted key → value over the config: ``{"pretrain.training.steps": 100}``.
        workspace: the folder of runs and prepared data; unless given, as the experiment says.
        on_stale: what a run would do with a stage that was made from other inputs: ``error``, ``rerun`` or ``keep``.

    Raises:
        ConfigError: the experiment can't be used. Its text, and its ``problems``, name each mistake's key, what was
            found and what was expected.
        DataError: its data can't be used.
    """
    see_to_caches()
    arguments = Arguments.of(experiment, configs, run, overrides, workspace=workspace, on_stale=on_stale)
    return Plan.of(arguments.plan(runs_here=False))


def see_to_caches() -> None:
    """Has libraries write where this user may, and says so; the command line does the same."""
    if moved := move_unwritable():
        warnings.warn(moved, stacklevel=3)
