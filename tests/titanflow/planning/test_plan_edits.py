"""Each edit of a finished run, in an experiment of four stages and in a chain: which are STALE, what changed, where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from finished_without_training import finish
from plan_edits import CACHED, EDITS, GIVEN, Edit, Place, edited, matches, own_changes, where, write_edited

from titanflow.planning.plan import make_plan


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs: ``tiny`` and ``chain``, also with a tokenizer and a template that are given, and ``mine``."""
    root = write_edited(tmp_path_factory.mktemp("edits"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(root)
        for experiment in ("tiny", "chain"):
            finish(root / "configs", experiment)
            for run, overrides in GIVEN.items():
                finish(root / "configs", experiment, run, [text.format(root=root) for text in overrides])
        finish(root / "configs", "mine")
    return root


@pytest.fixture
def place(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The finished runs; whatever a test does to their files is taken back."""
    monkeypatch.syspath_prepend(finished)
    with edited(finished, monkeypatch) as found:
        yield found


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_an_edit_is_explained(place: Place, edit: Edit) -> None:
    given = [text.format(root=place.root) for text in GIVEN.get(edit.run or "", [])]
    overrides = edit.overrides or given
    before = make_plan(edit.experiment, place.root / "configs", edit.run, given)
    assert {stage.state for stage in before.stages} == {"CACHED"}
    edit.make(place)
    plan = make_plan(edit.experiment, place.root / "configs", edit.run, overrides)
    assert {stage.stage: stage.state for stage in plan.stages} == edit.states
    found = own_changes(plan)
    assert list(found) == list(edit.changes)
    for stage, changes in edit.changes.items():
        assert len(found[stage]) == len(changes), found[stage]
        for one, (key, old, new, origin) in zip(found[stage], changes, strict=True):
            assert one[0] == key.replace("{root}", str(place.root))
            assert [matches(value, said) for value, said in zip(one[1:3], (old, new), strict=True)] == [True, True], one
            assert one[3] == where(place, origin, given)
    for index, stage in enumerate(plan.stages):
        parents = [change.parent for change in stage.changes if change.parent]
        changed = [before.stage for before in plan.stages[1:index] if before.state == "STALE"]
        assert parents == (changed if stage.state == "STALE" else [])


BASES = {"mid": "pretrain", "sft": "mid", "sft_b": "mid"}
"""The chain's trainings that have a base."""
READS = {
    **{name: [base] for name, base in BASES.items()},
    "evaluate": ["pretrain", "mid", "sft", "sft_b"],
    "publish": ["evaluate"],
}
"""What each of its stages is made from."""


@pytest.mark.parametrize("edit", [edit for edit in EDITS if edit.experiment == "tiny"], ids=lambda edit: edit.name)
def test_an_edit_of_a_chain_reaches_what_is_made_from_it_and_no_more(place: Place, edit: Edit) -> None:
    given = [text.format(root=place.root) for text in GIVEN.get(edit.run or "", [])]
    before = make_plan("chain", place.root / "configs", edit.run, given)
    assert {stage.state for stage in before.stages} == {"CACHED"}
    edit.make(place)
    plan = make_plan("chain", place.root / "configs", edit.run, edit.overrides or given)
    states, found = {stage.stage: stage.state for stage in plan.stages}, own_changes(plan)
    # What the edit changes in the four stages changes here as well, written in the same place.
    for stage, changes in edit.changes.items():
        for key, old, new, origin in changes:
            own = next(one for one in found[stage] if one[0] == key.replace("{root}", str(place.root)))
            assert matches(own[1], old)
            assert matches(own[2], new)
            assert own[3] == where(place, origin.replace("from pretrain", f"from {BASES.get(stage)}"), given)
    stale = set(found)
    for stage, reads in READS.items():
        stale |= {stage} if stale & set(reads) else set()
    if edit.states == CACHED or "STALE" in edit.states.values():
        assert {stage for stage, state in states.items() if state == "STALE"} == stale
        assert states["prepare"] == edit.states["prepare"]


def test_in_a_chain_a_stage_beside_the_changed_one_stays(place: Place) -> None:
    plan = make_plan("chain", place.root / "configs", overrides=["sft.optimizer.lr=0.5"])
    assert {stage.stage: stage.state for stage in plan.stages} == {
        **dict.fromkeys(("prepare", "pretrain", "mid", "sft_b"), "CACHED"),
        **dict.fromkeys(("sft", "evaluate", "publish"), "STALE"),
    }
