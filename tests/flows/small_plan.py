"""Plans whose stages are small programs in place of a training."""

import sys
import textwrap
from pathlib import Path

from titanflow.config.experiment import Experiment
from titanflow.config.files.tree import ConfigTree
from titanflow.config.keys.experiment import ExperimentSpec, Retries
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.runs.contract import StageRun

PREPARES = """
    import sys
    from pathlib import Path
    from titanflow.runs.results import PrepareResult, write_result
    write_result(Path(sys.argv[1]), PrepareResult(tokenizer=None, datasets={}, seconds=0.1))
"""
TRAINS = """
    import json, sys
    from pathlib import Path
    from titanflow.runs.results import PublishResult, TrainResult, write_result
    folder = Path(sys.argv[1])
    with (folder / "metrics.jsonl").open("w") as metrics:
        for step in range(1, 5):
            metrics.write(json.dumps({"step": step, "loss": 8 - step}) + "\\n")
    (folder / "checkpoint").mkdir(exist_ok=True)
    write_result(folder, TrainResult(
        stage="pretrain", checkpoint=folder / "checkpoint", step=4, model_name="llama3", flavor="demo",
        model_args={}, parameters=1, loss=4.0, seq_len=8,
    ))
"""
PUBLISHES = """
    import sys
    from pathlib import Path
    from titanflow.runs.results import PublishResult, write_result
    write_result(Path(sys.argv[1]), PublishResult(target="folder", location="/published"))
"""
HOLDS_BACK = """
    import sys
    from pathlib import Path
    from titanflow.runs.results import Comparison, GateDecision, PublishResult, write_result
    compared = Comparison(task="kind", metric="acc", pairs=400, difference=0.01, low=-0.02, high=0.04, passed=False)
    gate = GateDecision(passed=False, reason="no better than c0ffee", against="c0ffee", comparisons=[compared])
    result = PublishResult(target="folder", location="/published", status="held back", gate=gate)
    write_result(Path(sys.argv[1]), result)
"""
FAILS = """
    import sys
    from pathlib import Path
    from titanflow.runs.errors import StageError, write_error
    write_error(Path(sys.argv[1]), StageError(rank=1, type="ValueError", message="loss is nan"))
    sys.exit(1)
"""
# A training that is killed in its first attempt, with a checkpoint saved, and then finishes.
IS_KILLED_ONCE = (
    """
    import os, signal, sys
    from pathlib import Path
    folder = Path(sys.argv[1])
    saved = folder / "checkpoint/step-3"
    if not saved.exists():
        sys.path.insert(0, TESTS)
        from finished_stage import write_checkpoint
        write_checkpoint(saved)
        os.kill(os.getpid(), signal.SIGKILL)
""".replace("TESTS", repr(str(Path(__file__).parents[1])))
    + TRAINS
)
# A training that saves on SIGTERM and never ends by itself.
WAITS = """
    import json, os, signal, sys, time
    from pathlib import Path
    folder = Path(sys.argv[1])
    def save(number, frame):
        (folder / "saved").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 7.5}) + "\\n")
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)
"""
# A training that saves on SIGTERM in its first attempt, and then finishes.
SAVES_THEN_TRAINS = f"""
    import sys
    from pathlib import Path
    program = {TRAINS!r} if (Path(sys.argv[1]) / "saved").exists() else {WAITS!r}
    import textwrap
    exec(textwrap.dedent(program))
"""


def small_plan(folder: Path, **programs: str) -> Plan:
    """A plan with a stage for each program, by the stage's name."""
    stages = [_stage_plan(folder, stage, source) for stage, source in programs.items()]
    config = Experiment(
        path=folder / "tiny.yaml",
        tree=ConfigTree(folder),
        exp_name="tiny",
        workspace=folder,
        modules={},
        spec=ExperimentSpec(work_group="speech", retries=Retries(lost=1, delay=0)),
    )
    return Plan("tiny", "main", folder / "run", stages, config)


def _stage_plan(folder: Path, stage: str, source: str) -> StagePlan:
    program = folder / f"{stage}.py"
    program.write_text(textwrap.dedent(source))
    run = StageRun(
        stage=stage,
        experiment="tiny",
        run="main",
        folder=folder / "run" / stage,
        fingerprint=f"{stage}-1",
        config={"training": {"steps": 4}},
    )
    return StagePlan(stage, "RUN", "new", run, [sys.executable, str(program), str(run.folder)])
