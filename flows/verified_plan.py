"""The plan that a run follows: made anew after another run, with all reused outputs read and verified."""

from __future__ import annotations

from collections.abc import Callable

from titanflow.planning.stage_plan import Plan
from titanflow.planning.view import check_stale
from titanflow.runs.manifest import Manifest


def verified_plan(plan: Plan, is_old: bool, say: Callable[[str], None] = lambda line: None) -> Plan:
    """The plan to follow in a folder that this run holds; notes in the manifest what is kept.

    A plan trusts an output whose size, time and inode are as recorded. Before a stage reads it, all its bytes are
    compared with their digest; if it changed, ``say`` is told, and the stage that wrote it runs again. ``is_old`` says
    that another run worked in the folder since ``plan`` was made.
    """
    if is_old and plan.anew is not None:
        plan = plan.anew()
        check_stale(plan)
    while plan.anew is not None and (changed := _changed_outputs(plan)):
        for path, verdict in changed.items():
            say(f"{path} {verdict}: its stage runs again")
        plan = plan.anew()
        check_stale(plan)
    Manifest.open(plan.folder).record_kept({stage.stage: stage.changes for stage in plan.stages if stage.kept})
    return plan


def _changed_outputs(plan: Plan) -> dict[str, str]:
    """What changed of the reused outputs: those of cached stages before the last that runs."""
    manifest = Manifest.open(plan.folder)
    runs = [index for index, stage in enumerate(plan.stages) if stage.state != "CACHED"]
    found: dict[str, str] = {}
    for stage in plan.stages[: runs[-1] if runs else 0]:
        if stage.state == "CACHED" and stage.stage in manifest.stages:
            found |= manifest.verify(stage.stage)
    return found
