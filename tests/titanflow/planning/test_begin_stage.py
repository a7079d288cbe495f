"""What a stage's folder holds when it begins, and what of it survives a resume."""

from pathlib import Path

from finished_stage import finish_training

from titanflow.planning.begin import begin_stage
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.contract import RUN_FILE, StageRun
from titanflow.runs.manifest import checkpoint_digest


def test_the_base_that_a_resumed_stage_began_on_stays_on_record(tmp_path: Path) -> None:
    base, checkpoint = tmp_path / "base", tmp_path / "base" / "checkpoint" / "step-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_text("one")
    finish_training(base)
    StageRun(stage="pretrain", experiment="e", run="before", folder=base).write()
    began = checkpoint_digest(checkpoint)

    def begin(state: str) -> str:
        run = StageRun(stage="sft", experiment="e", run="r", folder=tmp_path / "sft", base=base)
        begin_stage(StagePlan("sft", state, "", run))
        return StageRun.read(run.folder / RUN_FILE).base_digest

    assert begin("RUN") == began
    (checkpoint / "weights").write_text("two")
    assert begin("RESUME") == began
    assert begin("RUN") == checkpoint_digest(checkpoint) != began
