"""The publish stage with a gate, against the local Hub and into a folder."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from finished_run import REPO, FinishedRun, evaluate_result, write_export, write_samples
from local_hub import LocalHub

from titanflow.common.digests import folder_digests
from titanflow.common.errors import ConfigError, DataError
from titanflow.publish.publish import main, publish
from titanflow.runs.contract import StageRun
from titanflow.runs.results import PublishResult

pytestmark = pytest.mark.slow

GATE = {"better_than_last": True, "tasks": ["stdlib_kind"], "resamples": 1000}
WRITES = "POST .*/(create|preupload|commit|tag|branch)|PUT"


class Models:
    """Runs below a folder, each with weights of its own and an accuracy of ``right`` percent."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, name: str, right: int, gate: dict[str, Any] | None = None, **evaluation: Any) -> StageRun:
        """The publish stage of a run that evaluated its model so."""
        root = self.root / name
        export = write_export(root / "sft" / "export")
        (export / "model.safetensors").write_bytes(name.encode() * 100)
        finished = FinishedRun.write(root)
        better = {"stdlib_kind": {"acc": True}}
        scores = {"sft": {"stdlib_kind": {"acc": right / 100, "acc_stderr": 0.04}}}
        values: dict[str, Any] = {"scores": scores, "samples": {"stdlib_kind": 100}, "higher_is_better": better}
        values |= {"seeds": {"fewshot": 1234}, "digests": {"sft": folder_digests(export)}, "folders": {"sft": export}}
        finished.evaluate(**(values | evaluation))
        write_samples(finished.stages["evaluate"], evaluate_result(**(values | evaluation)))
        return self.to_hub(finished, name, GATE if gate is None else gate)

    def to_hub(self, finished: FinishedRun, tag: str, gate: dict[str, Any]) -> StageRun:
        return finished.to_publish(target="hub", repo_id=REPO, tag=tag, gate=gate)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path)


def state(hub: LocalHub) -> tuple[int, dict[str, str]]:
    return len(hub.repos[REPO].commits), dict(hub.repos[REPO].tags)


def gate_of(result: PublishResult) -> Any:
    assert result.gate is not None
    return result.gate


def test_worse_is_held_back_and_better_is_published(
    models: Models, hub: LocalHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "titanflow.publish.publish")
    first = publish(models.run("a", 70))
    assert (first.status, gate_of(first).reason) == (
        "published",
        "nothing was published here before, so there is nothing to compare it with",
    )
    before, asked = state(hub), len(hub.log)

    worse = publish(models.run("b", 60))
    assert worse.status == "held back"
    assert (gate_of(worse).against, gate_of(worse).passed) == (first.commit, False)
    assert gate_of(worse).comparisons[0].difference == pytest.approx(-0.1)
    assert (worse.commit, worse.files) == ("", {})
    assert worse.location == f"{hub.url}/{REPO}/tree/b"
    assert state(hub) == before
    assert not [line for line in hub.log[asked:] if re.search(WRITES, line)]
    assert "held back: not 95 % sure to be better than" in caplog.text
    assert "stdlib_kind/acc -0.1 against the last, 95 % sure of more than" in caplog.text

    better = publish(models.run("c", 90))
    assert better.status == "published"
    assert gate_of(better).comparisons[0].passed
    assert hub.repos[REPO].tags == {"a": first.commit, "c": better.commit}


def test_the_published_record_tells_of_the_decision_and_of_the_model_before(models: Models, hub: LocalHub) -> None:
    first, second = publish(models.run("a", 70)), publish(models.run("b", 90))
    files = hub.repos[REPO].files("b")
    record = json.loads(files["titanflow.json"])
    assert record["gate"] == json.loads(gate_of(second).model_dump_json())
    assert record["last"]["name"] == first.commit
    assert record["last"]["stages"]["evaluate"]["scores"]["sft"]["stdlib_kind"]["acc"] == 0.7
    assert (
        json.loads(files["titanflow_samples.json"])["tasks"]["stdlib_kind"]["metrics"]["acc"]["values"].count(1) == 90
    )
    assert "last" not in json.loads(hub.repos[REPO].files("a")["titanflow.json"])


def test_what_is_published_already_keeps_its_decision(models: Models, hub: LocalHub) -> None:
    publish(models.run("a", 70))
    run = models.run("b", 90)
    first = publish(run)
    before = state(hub)
    again = publish(run)
    assert again.model_copy(update={"seconds": first.seconds}) == first
    assert state(hub) == before


def test_a_push_that_was_cut_off_is_not_what_the_next_one_has_to_beat(models: Models, hub: LocalHub) -> None:
    first = publish(models.run("a", 60))
    hub.fail("POST .*/tag/", 403)
    with pytest.raises(Exception, match="403"):
        publish(models.run("b", 95))
    head = hub.repos[REPO].branches["main"]
    assert head not in hub.repos[REPO].tags.values()
    third = publish(models.run("c", 80))
    assert (third.status, gate_of(third).against) == ("published", first.commit)
    assert hub.repos[REPO].tags == {"a": first.commit, "c": third.commit}


def test_a_model_that_is_published_meanwhile_is_compared_with(models: Models, hub: LocalHub) -> None:
    first = publish(models.run("a", 60))
    rival = models.run("rival", 95)
    publish(rival.model_copy(update={"config": rival.config | {"repo_id": "local/elsewhere"}}))
    theirs = hub.repos["local/elsewhere"].at("rival").files

    def get_in_between() -> None:
        hub.repos[REPO].tags["rival"] = hub.repos[REPO].commit("main", "rival", theirs).oid

    hub.before("POST .*/commit/", get_in_between)
    result = publish(models.run("b", 80))
    assert result.status == "held back"
    assert gate_of(result).against == hub.repos[REPO].tags["rival"] != first.commit
    assert hub.repos[REPO].branches["main"] == hub.repos[REPO].tags["rival"]


@pytest.mark.parametrize(
    ("evaluation", "says"),
    [
        ({"seeds": {"fewshot": 1}}, "seeds {'fewshot': 1234} then, {'fewshot': 1} now"),
        ({"task_versions": {"stdlib_kind": "2.0"}}, "stdlib_kind was version '1.0' and is '2.0'"),
        ({"n_shot": {"stdlib_kind": 0}}, "stdlib_kind had 2 examples in the prompt and has 0"),
        ({"samples": {"stdlib_kind": 200}}, "0 of the last one's 100 samples are missing, 100 are new"),
    ],
)
def test_another_way_of_measuring_is_not_compared(
    models: Models, hub: LocalHub, evaluation: dict[str, Any], says: str
) -> None:
    publish(models.run("a", 60))
    before = state(hub)
    result = publish(models.run("b", 95, **evaluation))
    assert result.status == "held back"
    assert says in gate_of(result).reason
    assert state(hub) == before


def test_a_model_that_came_without_samples_has_to_be_replaced_once_without_a_comparison(
    models: Models, hub: LocalHub
) -> None:
    first = models.run("a", 60, gate={})
    for path in (models.root / "a" / "evaluate").glob("samples_*"):
        path.unlink()
    assert publish(first).gate is None
    held_back = publish(models.run("b", 95))
    assert "publish once with better_than_last: false" in gate_of(held_back).reason
    assert publish(models.run("c", 70, gate={})).status == "published"
    assert publish(models.run("d", 95)).status == "published"


def test_a_threshold_holds_back_the_first_model_too(models: Models, hub: LocalHub) -> None:
    result = publish(models.run("a", 70, gate={"thresholds": {"stdlib_kind/acc": 0.8}}))
    assert result.status == "held back"
    assert REPO not in hub.repos
    assert publish(models.run("b", 85, gate={"thresholds": {"stdlib_kind/acc": 0.8}})).status == "published"


def test_a_folder_s_model_is_replaced_by_a_better_one_only(models: Models, tmp_path: Path) -> None:
    folder = tmp_path / "best"

    def into_folder(run: StageRun) -> PublishResult:
        config = {"target": "folder", "folder": str(folder), "evaluation": "evaluate", "gate": GATE}
        return publish(run.model_copy(update={"config": config}))

    first, second, third = models.run("a", 70), models.run("b", 60), models.run("c", 90)
    assert into_folder(first).status == "published"
    standing = {path.name: path.read_bytes() for path in folder.iterdir()}
    held_back = into_folder(second)
    assert (held_back.status, held_back.location, gate_of(held_back).against) == (
        "held back",
        str(folder),
        "stdlib/run-7",
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == standing
    assert into_folder(third).status == into_folder(third).status == "published"
    assert (folder / "model.safetensors").read_bytes() == b"c" * 100
    assert str(tmp_path) not in (folder / "titanflow.json").read_text()


def test_what_was_tampered_with_is_no_matter_for_a_gate(models: Models, hub: LocalHub) -> None:
    publish(models.run("a", 70))
    run = models.run("b", 95)
    (models.root / "b" / "sft" / "export" / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(DataError, match=r"tokenizer\.json: changed since it was evaluated"):
        publish(run)


def test_a_gate_without_an_evaluation(finished: FinishedRun) -> None:
    del finished.stages["evaluate"]
    with pytest.raises(ConfigError, match="found a gate, and nothing was evaluated"):
        publish(finished.to_publish(gate={"better_than_last": True}))
    assert not (finished.root / "publish").exists()


def test_the_process_ends_well_where_it_holds_back(models: Models, hub: LocalHub) -> None:
    publish(models.run("a", 70))
    run = models.run("b", 60)
    assert main([str(run.write())]) == 0
    result = PublishResult.model_validate_json((run.folder / "result.json").read_text())
    assert result.status == "held back"
    assert not (run.folder / "error.json").exists()
