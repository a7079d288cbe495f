import json
from pathlib import Path
from typing import Any

import pytest
from finished_run import FinishedRun

from titanflow.architectures.families.registry import ARCHITECTURES
from titanflow.common.errors import DataError
from titanflow.config.keys.after_training import Publish
from titanflow.nightly.night import Night, Parent
from titanflow.publish.bundle import from_export
from titanflow.publish.lineage import lineage_json, read_lineage
from titanflow.publish.publish import Candidate, build_bundle
from titanflow.runs.changes import Change
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import Manifest, StageRecord


def record(finished: FinishedRun) -> dict[str, Any]:
    lineage = read_lineage(finished.to_publish(), "sft")
    return json.loads(lineage_json(lineage, from_export(finished.export)))


def test_everything_that_leads_to_the_model_is_recorded(finished: FinishedRun) -> None:
    content = record(finished)
    assert (content["experiment"], content["run"], content["model"]) == ("stdlib", "run-7", "sft")
    assert list(content["stages"]) == ["pretrain", "sft", "evaluate"]
    sft = content["stages"]["sft"]
    assert (sft["fingerprint"], sft["step"], sft["loss"]) == ("sftf1", 120, 2.125)
    assert sft["config"]["batch"] == 16
    assert sft["versions"] == {"torch": "2.13.0", "torchtitan": "0.2.2"}
    assert content["stages"]["evaluate"]["scores"]["sft"]["stdlib_kind"]["acc"] == 0.93
    files = {name: entry.sha256 for name, entry in from_export(finished.export).items()}
    assert content["files"] == files
    assert sft["export_digests"] == files


def test_no_path_and_no_name_of_another_file(finished: FinishedRun, tmp_path: Path) -> None:
    text = json.dumps(record(finished))
    for private in (str(tmp_path), "secret.jsonl", ".env", "optimizer.pt", "checkpoint"):
        assert private not in text


def test_a_loss_that_is_no_number_is_null(finished: FinishedRun) -> None:
    finished.train("pretrain", loss=float("nan"))
    assert record(finished)["stages"]["pretrain"]["loss"] is None


def test_what_the_published_model_said_is_recorded(finished: FinishedRun) -> None:
    assert "greedy" not in record(finished)
    said = {name: {"prompt": [1], "continuation": [number]} for number, name in enumerate(("base", "sft"))}
    finished.evaluate(greedy=said)
    assert record(finished)["greedy"] == said["sft"]


def test_pretraining_alone_can_be_published(finished: FinishedRun) -> None:
    (finished.root / "pretrain" / "export").mkdir()
    del finished.stages["evaluate"]
    lineage = read_lineage(finished.to_publish(), "pretrain")
    assert lineage.export == finished.root / "pretrain" / "export"
    assert [stage.name for stage in lineage.trained] == ["pretrain"]


def test_a_module_that_the_run_lacks(finished: FinishedRun) -> None:
    del finished.stages["sft"]
    with pytest.raises(DataError, match="this run has no training stage 'sft'") as caught:
        read_lineage(finished.to_publish(), "sft")
    assert "expected: pretrain" in str(caught.value)


@pytest.mark.parametrize("stage", ["pretrain", "sft", "evaluate"])
@pytest.mark.parametrize("file", ["result.json", "run.yaml"])
def test_a_stage_that_has_not_finished(finished: FinishedRun, stage: str, file: str) -> None:
    (finished.root / stage / file).unlink()
    with pytest.raises(DataError, match=f"{stage} has not finished: it has no {file}"):
        read_lineage(finished.to_publish(), "sft")


@pytest.mark.parametrize("stage", ["pretrain", "sft", "evaluate"])
@pytest.mark.parametrize("file", ["run.yaml", "result.json"])
@pytest.mark.parametrize("content", ["", "[1]", "a: [", "{}"])
def test_a_stage_whose_files_cannot_be_read(finished: FinishedRun, stage: str, file: str, content: str) -> None:
    (finished.root / stage / file).write_text(content)
    with pytest.raises(DataError, match=rf"/{stage}.*(can't be read|another version)"):
        read_lineage(finished.to_publish(), "sft")


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("gpt_oss", "there is no export for the model family 'gpt_oss': its layers take FlexAttention's masks alone"),
        ("flux", "supported: " + ", ".join(ARCHITECTURES)),
        ("llama4", "it was trained without a tokenizer"),
    ],
)
def test_a_model_without_export_says_why(finished: FinishedRun, family: str, why: str) -> None:
    finished.train("sft", export=None, model_name=family)
    finished.export.rename(finished.root / "elsewhere")
    with pytest.raises(DataError, match="model: sft has no export: ") as caught:
        read_lineage(finished.to_publish(), "sft")
    assert why in str(caught.value)


def test_an_export_that_the_evaluation_made(finished: FinishedRun) -> None:
    finished.train("sft", export=None)
    assert read_lineage(finished.to_publish(), "sft").export == finished.export


def test_a_model_that_was_not_evaluated(finished: FinishedRun) -> None:
    finished.evaluate(digests={"base": {}}, folders={"base": finished.root / "pretrain" / "export"})
    with pytest.raises(DataError, match="sft was not evaluated") as caught:
        read_lineage(finished.to_publish(), "sft")
    assert "expected: base" in str(caught.value)


def test_a_model_is_known_by_its_folder_whatever_the_evaluation_calls_it(finished: FinishedRun) -> None:
    finished.evaluate(digests={"mine": {}}, folders={"mine": finished.export})
    assert record(finished)["evaluated_as"] == "mine"
    (finished.root / "pretrain" / "export").mkdir()
    finished.evaluate()
    evaluation = read_lineage(finished.to_publish(), "pretrain").evaluation
    assert evaluation is not None
    assert evaluation.model == "base"


def test_what_the_stages_left_is_read_once(finished: FinishedRun) -> None:
    (finished.root / "prepare").mkdir()
    (finished.root / "prepare" / "result.json").write_text('{"datasets": {"/rows": {"name": "stdlib", "rows": 7}}}')
    run = StageRun.read(finished.root / "sft" / "run.yaml")
    run.data.train = Path("/rows")
    run.write()
    lineage = read_lineage(finished.to_publish(), "sft")
    candidate = Candidate(Publish(), lineage, from_export(finished.export), samples=None)
    bundle = build_bundle(candidate, lineage, {})
    assert "| sft | trained on | stdlib | n/a | 7 |" in str(bundle["README.md"].source)
    for name in ("run.yaml", "result.json"):
        for path in finished.root.glob(f"*/{name}"):
            path.unlink()
    assert build_bundle(candidate, lineage, {}) == bundle


def test_a_stage_that_was_kept_does_not_pass_as_the_config_s(finished: FinishedRun) -> None:
    assert "kept" not in record(finished)
    changes = [
        Change(key="pretrain.optimizer.lr", old=0.1, new=0.2, origin="/home/someone/tiny.yaml:3"),
        Change(key="pretrain.data.path: /home/someone/secret.jsonl", old="sha256 1", new="sha256 2"),
    ]
    manifest = Manifest(folder=finished.root, stages={"pretrain": StageRecord(fingerprint="f", kept=changes)})
    (finished.root / "manifest.json").write_text(manifest.model_dump_json())
    content = record(finished)
    assert content["kept"] == {"pretrain": ["pretrain.optimizer.lr", "pretrain.data.path"]}
    assert "/home/someone" not in json.dumps(content)


def test_a_night_s_model_tells_which_night_it_continues(finished: FinishedRun) -> None:
    Night(date="2026-11-05", run="run-7").write(finished.root)
    assert "continues" not in record(finished)
    checkpoint = Path("/home/someone/2026-11-04/pretrain/checkpoint/step-10")
    parent = Parent(run="2026-11-04", checkpoint=checkpoint, step=10, rows=40, digest="d")
    Night(date="2026-11-05", run="run-7", parent=parent).write(finished.root)
    assert record(finished)["continues"] == {"run": "2026-11-04", "step": 10, "rows": 40, "digest": "d"}
