"""A mean among the models of an evaluation: it is made, exported and scored there."""

from pathlib import Path

import pytest
from tiny_evals import write_evals
from tiny_evaluation import Trained, evaluation, give_rows
from tiny_exports import write_byte_tokenizer
from tiny_means import write_stage

from titan.evaluate.evaluate import evaluate_stage
from titanflow.common.digests import folder_digests
from titanflow.runs.results import TrainResult, read_result


@pytest.mark.slow
def test_a_mean_is_scored_by_its_export_and_has_seen_what_its_models_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    tokenizer = write_byte_tokenizer(tmp_path / "tokenizer")
    stages = {name: write_stage(tmp_path / name, [seed], tokenizer) for seed, name in enumerate(("a", "b"))}
    give_rows(stages["b"], "rows_of_b", ["nothing that is asked"])
    (tmp_path / "evals").mkdir()
    trained = Trained(tmp_path, write_evals(tmp_path / "evals"))
    asked = {"tasks": ["tiny_kind"], "limit": 2, "chat": False, "models": ["avg"]}
    run = evaluation(trained, tmp_path / "evaluate", **asked, means={"avg": {"mean": ["a", "b"]}})
    run.stages = {**stages, "avg": tmp_path / "avg"}
    run.write()

    result = evaluate_stage(run)

    assert list(result.scores) == ["avg"]
    assert result.folders == {"avg": tmp_path / "avg" / "export"}
    assert result.digests["avg"] == folder_digests(tmp_path / "avg" / "export")
    assert result.contamination is not None
    assert result.contamination.looked_at == ["rows_of_b"]
    made = read_result(tmp_path / "avg")
    assert isinstance(made, TrainResult)
    assert [(part.stage, part.weight) for part in made.mean_of] == [("a", 0.5), ("b", 0.5)]
