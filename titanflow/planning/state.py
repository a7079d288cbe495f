"""Tells a stage's state and why: RUN, RESUME, EXTEND, CACHED or STALE, from the files in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from titanflow.config.keys.on_stale import OnStale
from titanflow.config.means.recipe import averaged_stages, best_of
from titanflow.planning.extension.more_steps import Extension, find_extension
from titanflow.planning.preparation import Preparation
from titanflow.planning.stage_plan import StageState
from titanflow.runs.changes import Change, changes_reason, find_changes, values
from titanflow.runs.checkpoints import newest_step, saved_so_far
from titanflow.runs.contract import RESULT_FILE, RUN_FILE, StageRun
from titanflow.runs.inputs import StageInputs
from titanflow.runs.manifest import Manifest, StageRecord
from titanflow.runs.outputs import OutputCheck
from titanflow.runs.results import PrepareResult, PublishResult, read_result, result_of
from titanflow.runs.scores.best import best_checkpoint

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import StagePlan

UNRECORDED = "it was made from other inputs, which weren't recorded when it ran"


@dataclass(frozen=True)
class Verdict:
    """A stage's state. ``changes`` are inputs that differ from those of its output; ``kept`` says that the output is
    used all the same; ``made_from`` is the fingerprint of a kept output; ``extension`` says what more steps do."""

    state: StageState
    reason: str
    changes: list[Change] = field(default_factory=list)
    kept: bool = False
    made_from: str = ""
    extension: Extension | None = None


@dataclass
class StageStates:
    """Tells the state of one stage after the other; ``on_stale`` is the experiment's."""

    manifest: Manifest
    preparation: Preparation
    on_stale: OnStale = "error"
    check: OutputCheck = field(default_factory=OutputCheck)

    def of(self, run: StageRun, inputs: StageInputs, earlier: Sequence[StagePlan]) -> Verdict:
        if run.kind == "prepare":
            return self._of_prepare(run)
        step, is_finished = newest_step(run.folder), (run.folder / RESULT_FILE).exists()
        again = runs_again(run, earlier)
        if step is None and not is_finished:
            return Verdict("RUN", f"after {again}" if again else self._why_unmade(run))
        record = self._record(run)
        made_from = record.fingerprint if record else _made_from(run)
        if made_from != run.fingerprint:
            return self._of_other_inputs(run, inputs, record, step, is_finished)
        if again:
            return Verdict("RUN", f"after {again}")
        return self._of_same_inputs(run, record, step)

    def _of_prepare(self, run: StageRun) -> Verdict:
        missing, total = self.preparation.missing(), len(self.preparation.folders())
        if missing:
            todo = f"{len(missing)} of {total} to prepare"
            saved = saved_so_far(run.folder) if _made_from(run) == run.fingerprint else ""
            return Verdict("RESUME", f"{todo}, from {saved}") if saved else Verdict("RUN", todo)
        result = result_of(run.folder)
        if not isinstance(result, PrepareResult) or not _looked_at(result, self.preparation):
            return Verdict("RUN", f"to record what other runs prepared: {total} of {total}")
        return Verdict("CACHED", f"{total} prepared")

    def _record(self, run: StageRun) -> StageRecord | None:
        """The stage's record, unless it is of another output than the folder's."""
        record = self.manifest.stages.get(run.stage)
        if record is None or record.fingerprint == run.fingerprint:
            return record
        # A run that was killed in between wrote run.yaml and not yet its record.
        return record if record.fingerprint == _made_from(run) else None

    def _why_unmade(self, run: StageRun) -> str:
        if not (run.folder / RUN_FILE).exists():
            return "new"
        return "nothing is saved yet" if _made_from(run) == run.fingerprint else "its inputs changed; nothing was made"

    def _of_same_inputs(self, run: StageRun, record: StageRecord | None, step: int | None) -> Verdict:
        why = "its end wasn't recorded" if (run.folder / RESULT_FILE).exists() else "nothing is saved yet"
        if record is not None and record.finished:
            changed = self.manifest.changed_outputs(run.stage, self.check)
            if not changed:
                if others := _other_best(run, record):
                    return self._of_other_best(record, others)
                again = _done_again(run)
                return Verdict("RUN", again) if again else Verdict("CACHED", "nothing changed")
            path, verdict = next(iter(changed.items()))
            why = f"{path} {verdict}"
            if any(path.startswith(f"{run.stage}/checkpoint/") for path in changed):
                return Verdict("RUN", why)
        if step is not None:
            return Verdict("RESUME", f"from step {step}" + (f": {why}" if record and record.finished else ""))
        return Verdict("RUN", why)

    def _of_other_best(self, record: StageRecord, changes: list[Change]) -> Verdict:
        """An evaluation of a checkpoint that isn't the best any more: its training's scores aren't an input."""
        reason = changes_reason(changes)
        if self.on_stale == "keep":
            return Verdict("CACHED", f"kept: {reason}", changes, kept=True, made_from=record.fingerprint)
        return Verdict("STALE", reason, changes)

    def _of_other_inputs(
        self, run: StageRun, inputs: StageInputs, record: StageRecord | None, step: int | None, is_finished: bool
    ) -> Verdict:
        if again := _made_nothing(run):
            return Verdict("RUN", f"its inputs changed, and {again}")
        changes = find_changes(record.inputs, inputs) if record is not None and record.inputs is not None else []
        reason = changes_reason(changes) if changes else UNRECORDED
        is_done = is_finished and record is not None and bool(record.finished)
        damaged = self.manifest.changed_outputs(run.stage, self.check) if is_done else {}
        extension = find_extension(run, changes, inputs)
        begins = f"{run.stage}/checkpoint/step-{extension.begins}/" if extension else ""
        is_sound = extension is not None and not any(path.startswith(begins) for path in damaged)
        if extension is not None and not extension.refusal and is_sound and (self.on_stale != "keep" or not is_done):
            return Verdict("EXTEND", str(extension), extension=extension)
        if not is_done:
            reason += f"; it was interrupted after step {step}" if step is not None else "; it didn't finish"
        elif damaged:
            reason += "; {} {}".format(*next(iter(damaged.items())))
        elif self.on_stale == "keep" and record is not None:
            differ = f"{values(len(changes))} differ{'s' if len(changes) == 1 else ''}" if changes else UNRECORDED
            return Verdict("CACHED", f"kept: {differ}", changes, kept=True, made_from=record.fingerprint)
        if extension is not None and extension.refusal:
            reason += f"; {extension.refusal}"
        return Verdict("STALE", reason, changes, extension=extension)


def _looked_at(result: PrepareResult, preparation: Preparation) -> bool:
    """Whether a prepare step compared all that this run reads; names count, since a workspace may be moved."""
    noted = {Path(folder).name for folder in result.datasets}
    return all(Path(dataset["folder"]).name in noted for dataset in preparation.config["datasets"])


def runs_again(run: StageRun, earlier: Sequence[StagePlan]) -> str:
    """The last earlier stage that isn't cached and whose result this one reads; empty if there is none."""
    again = [plan.stage for plan in parents(run, earlier) if plan.state != "CACHED"]
    return again[-1] if again else ""


def parents(run: StageRun, earlier: Sequence[StagePlan]) -> list[StagePlan]:
    """The stages whose results a stage is made from: its base, or the models that it names, with their own parents.

    A publication is made from its scores, too. Models by their folder may be any stage's.
    """
    models = run.config.get("models")
    if run.kind == "evaluate" and not isinstance(models, list):
        return [plan for plan in earlier if plan.run.trains]
    asked = () if run.trains else models or [run.config.get("model")]
    named = [run.base, *(run.stages.get(name) for name in [*asked, *averaged_stages(run.config)])]
    scored = run.config["evaluation"] if run.kind == "publish" else None
    own = [plan for plan in earlier if plan.run.folder in named or plan.stage == scored]
    before = {other.stage for plan in own for other in parents(plan.run, earlier)}
    return [plan for plan in earlier if plan in own or plan.stage in before]


def _other_best(run: StageRun, record: StageRecord) -> list[Change]:
    """The best checkpoints among an evaluation's models that are others now, by the scores of their trainings."""
    changes = []
    for name, mean in best_of(run.config).items():
        training, made = StageRun.of(run.stages[mean.stages[0]]), record.best.get(name)
        best = best_checkpoint(training, mean.by) if training is not None else None
        if best is not None and made is not None and best.step != made.step:
            origin = run.origins.get(f"means.{name}.best.by", "")
            changes.append(Change(key=f"{run.stage}.{name}: step", old=made.step, new=best.step, origin=origin))
    return changes


def _made_nothing(run: StageRun) -> str:
    """Why a finished publish stage published nothing; empty if it did, and for other stages."""
    result = read_result(run.folder) if run.kind == "publish" else None
    status = result.status if isinstance(result, PublishResult) else "published"
    return {"held back": "the gate held it back", "dry run": "it was a dry run"}.get(status, "")


def _done_again(run: StageRun) -> str:
    """Why a finished stage runs again although its inputs didn't change; empty if it doesn't."""
    if run.kind == "evaluate" and run.config["log_samples"] and not any(run.folder.glob("samples_*.jsonl")):
        return "its samples were not kept"
    # The model that the gate compares with may have changed.
    return _made_nothing(run)


def _made_from(run: StageRun) -> str:
    """The fingerprint of what lies in a stage's folder, by its ``run.yaml``."""
    made = StageRun.of(run.folder)
    return made.fingerprint if made is not None else ""
