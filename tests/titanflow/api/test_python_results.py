"""``titanflow.results`` of runs in every state."""

import json
import shutil
from pathlib import Path

import pytest
from reported_run import evaluation, publication, write_json, write_manifest, write_run

import titanflow
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import write_result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "tiny" / "main")


def without(folder: Path, *stages: str) -> Path:
    """The run before these stages began."""
    kept = [name for name in Manifest.open(folder).stages if name not in stages]
    write_manifest(folder, kept)
    for stage in stages:
        shutil.rmtree(folder / stage)
    return folder


def test_losses_and_validation_are_the_metrics_file_s(folder: Path) -> None:
    found = titanflow.results(folder)
    assert (found.experiment, found.run, found.folder) == ("tiny", "main", folder)
    assert [(one["stage"], one["step"], one["loss"]) for one in found.losses] == [
        (stage, step, 8 / step) for stage in ("pretrain", "sft") for step in range(1, 9)
    ]
    assert found.losses[3]["tokens_per_second"] == 1004
    assert found.validation == [{"stage": stage, "step": 8, "validation_loss": 1.25} for stage in ("pretrain", "sft")]
    assert found.missing == {"paths": "pretrain is finished, sft is finished"}
    assert {found.units[key] for key in ("loss", "validation_loss")} == {"nats/token"}
    assert found.units["system/memory_active_gib"] == "GiB"


def test_what_a_record_nests_is_named_with_a_slash(folder: Path) -> None:
    record = {"step": 9, "loss": 0.5, "system": {"memory_active_gib": 1.5}, "router": {"layer_0/gate": 0.25}}
    with (folder / "sft" / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + '\n{"step": 10, "lo')
    assert titanflow.results(folder).losses[-1] == {
        **{"stage": "sft", "step": 9, "loss": 0.5},
        **{"system/memory_active_gib": 1.5, "router/layer_0/gate": 0.25},
    }


def test_scores_have_their_standard_error(folder: Path) -> None:
    scores = {"sft": {"colour": {"exact_match,strict": 0.9, "exact_match_stderr,strict": 0.01, "acc": float("nan")}}}
    write_result(folder / "evaluate", evaluation(scores=scores))
    common = {"stage": "evaluate", "model": "sft", "task": "colour", "samples": 400}
    assert titanflow.results(folder).scores == [
        {**common, "metric": "exact_match,strict", "value": 0.9, "stderr": 0.01},
        {**common, "metric": "acc", "value": None, "stderr": None},
    ]


def test_an_evaluation_at_work_has_the_scores_of_the_tasks_that_it_has_finished(folder: Path) -> None:
    (folder / "evaluate" / "result.json").unlink()
    done = {"step": 1, "steps": 2, "model": "base", "task": "colour", "scores": {"acc": 0.5, "acc_stderr": 0.1}}
    (folder / "evaluate" / "metrics.jsonl").write_text(json.dumps(done) + "\n")
    found = titanflow.results(folder)
    asked = {"model": "base", "task": "colour"}
    numbers = {"value": 0.5, "stderr": 0.1, "samples": None}
    assert found.scores == [{"stage": "evaluate", **asked, "metric": "acc", **numbers}]
    assert found.stages[3] | {"seconds": None} == {
        **{"stage": "evaluate", "state": "unfinished"},
        **{"seconds": None, "error": None},
    }


def test_what_is_not_there_is_empty_and_named(folder: Path) -> None:
    found = titanflow.results(without(folder, "sft", "evaluate", "publish"))
    assert {one["stage"] for one in found.losses} == {"pretrain"}
    assert found.scores == []
    assert found.missing["scores"] == "evaluate is not begun"
    assert [(one["stage"], one["state"]) for one in found.stages][1:4] == [
        ("pretrain", "finished"),
        ("sft", "not begun"),
        ("evaluate", "not begun"),
    ]
    (folder / "pretrain" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert "nothing was held out" in titanflow.results(folder).missing["validation"]
    write_json(folder / "plan.json", {"experiment": "tiny", "run": "main", "stages": [{"stage": "prepare"}]})
    shutil.rmtree(folder / "pretrain")
    write_manifest(folder, ["prepare"])
    found = titanflow.results(folder)
    assert {*found.missing} == {"losses", "validation", "scores", "paths"}
    assert found.missing["losses"] == "the run has no stage pretrain or sft or prefer"


def test_a_stage_that_failed_says_why(folder: Path) -> None:
    (folder / "sft" / "result.json").unlink()
    write_json(folder / "sft" / "error.json", {"type": "DataError", "message": "row 7 is empty"})
    assert titanflow.results(folder).stages[2]["state"] == "failed"
    assert titanflow.results(folder).stages[2]["error"] == "row 7 is empty"


def test_paths_lead_to_what_was_written_also_in_a_run_that_was_moved(folder: Path, tmp_path: Path) -> None:
    from finished_stage import write_checkpoint

    write_checkpoint(folder / "pretrain" / "checkpoint" / "step-4")
    write_checkpoint(folder / "pretrain" / "checkpoint" / "step-8")
    (folder / "pretrain" / "checkpoint" / "step-12").mkdir()
    for name in ("config.json", "model.safetensors"):
        write_json(folder / "pretrain" / "export" / name, {})
    (folder / "report.html").write_text("")
    write_result(folder / "publish", publication(location="owner/name", target="hub"))
    moved = folder.rename(tmp_path / "moved")
    found = [(one["what"], one["stage"], one["step"], one["path"]) for one in titanflow.results(str(moved)).paths]
    assert found == [
        ("checkpoint", "pretrain", 4, str(moved / "pretrain" / "checkpoint" / "step-4")),
        ("checkpoint", "pretrain", 8, str(moved / "pretrain" / "checkpoint" / "step-8")),
        ("export", "pretrain", 8, str(moved / "pretrain" / "export")),
        ("published", "publish", None, "owner/name"),
        ("report", "", None, str(moved / "report.html")),
    ]


def test_a_model_that_was_held_back_lies_nowhere(folder: Path) -> None:
    write_result(folder / "publish", publication(status="held back"))
    found = titanflow.results(folder)
    assert found.paths == []
    assert found.stages[-1]["state"] == "held back"


def test_a_folder_that_is_no_run_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(titanflow.ConfigError, match=r"holds neither plan\.json nor manifest\.json"):
        titanflow.results(tmp_path)
    with pytest.raises(
        titanflow.ConfigError, match=r"^run: found None \(NoneType\)\n    expected: what titanflow\.run"
    ):
        titanflow.results(None)  # type: ignore[arg-type]  # what no type checker looks at passes it


@pytest.mark.parametrize("place", ["..", "sft"])
def test_a_folder_beside_a_run_names_the_run(folder: Path, place: str) -> None:
    with pytest.raises(titanflow.ConfigError) as caught:
        titanflow.results((folder / place).resolve())
    assert f"did you mean {folder}?" in str(caught.value)
