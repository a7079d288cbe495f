import json
from pathlib import Path

from reported_run import publication

from titanflow.report.contents import read_contents
from titanflow.runs.results import write_result


def test_a_stage_s_time_is_that_between_its_start_and_its_end(run_folder: Path) -> None:
    run = read_contents(run_folder)
    assert [stage.seconds for stage in run.stages] == [10, 20, 30, 40, 50]


def test_without_both_ends_it_is_what_the_stage_says(run_folder: Path) -> None:
    (run_folder / "manifest.json").unlink()
    run = read_contents(run_folder)
    found = {stage.name: stage.seconds for stage in run.stages}
    assert found == {"prepare": 3.5, "pretrain": 9.0, "sft": 9.0, "evaluate": 0.0, "publish": 0.0}


def test_publishing_has_a_state_of_its_own(run_folder: Path) -> None:
    write_result(run_folder / "publish", publication(status="dry run"))
    assert [stage.state for stage in read_contents(run_folder).stages][-2:] == ["finished", "dry run"]


def test_without_a_plan_the_manifest_says_which_stages_there_are(run_folder: Path) -> None:
    (run_folder / "plan.json").unlink()
    run = read_contents(run_folder)
    assert [stage.name for stage in run.stages] == ["prepare", "pretrain", "sft", "evaluate", "publish"]
    assert run.stages[0].fingerprint == "prepare-fingerprint"


def test_the_commands_of_a_run_that_was_moved_run_it_where_it_is(run_folder: Path, tmp_path: Path) -> None:
    plan = json.loads((run_folder / "plan.json").read_text(encoding="utf-8"))
    for stage in plan["stages"]:
        folder = str(run_folder / stage["stage"])
        stage |= {"folder": folder, "command": ["python", "-m", "titan.train.train", f"{folder}/run.yaml"]}
    (run_folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    moved = run_folder.rename(tmp_path / "elsewhere")
    for stage in read_contents(moved).stages:
        assert stage.command[-1] == str(moved / stage.name / "run.yaml")
