"""An evaluation's settings and its failures, in this process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_evals import KINDS, TASKS
from tiny_evaluation import FOLDERS, Trained, evaluation, samples, write_trained
from tiny_exports import POSITIONS

import titan.evaluate.evaluate
from titan.evaluate.evaluate import evaluate_stage, main
from titan.evaluate.lm.lm import SharedLM
from titanflow.common.errors import ConfigError, StageFailed
from titanflow.runs.contract import StageRun
from titanflow.runs.errors import StageError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return write_trained(tmp_path_factory.mktemp("run"))


@pytest.fixture
def quick(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StageRun]:
    """Stages to evaluate in this process, on copies of the exports."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    copies = tmp_path / "copies"
    for stage in ("pretrain", "sft"):
        shutil.copytree(trained.folder / "sft" / "export", copies / stage / "export")

    def stage(**settings: Any) -> StageRun:
        run = evaluation(trained, tmp_path / "evaluate", **{"tasks": ["tiny_kind"], **settings})
        run.stages = {name: copies / folder for name, folder in FOLDERS.items()}
        run.write()
        return run

    return stage


def test_a_limited_run_is_marked(quick: Callable[..., StageRun]) -> None:
    run = quick(limit=4, models=["sft"])

    result = evaluate_stage(run)

    assert result.limit == 4
    assert result.samples == {"tiny_kind": 4}
    assert len(samples(run, "sft", "tiny_kind")) == 4


def test_without_the_template_the_question_stands_alone(quick: Callable[..., StageRun]) -> None:
    run = quick(chat=False, models=["sft"], limit=1)

    evaluate_stage(run)

    assert samples(run, "sft", "tiny_kind")[0]["arguments"][0][0] == KINDS[0][0]


def test_a_groups_tasks_are_scored_each(quick: Callable[..., StageRun]) -> None:
    result = evaluate_stage(quick(tasks=["tiny_group"], models=["sft"], limit=2))

    assert set(result.scores["sft"]) >= {"tiny_kind", "tiny_module"}
    assert result.samples == {"tiny_kind": 2, "tiny_module": 2}


def test_prompts_that_were_cut_are_counted(quick: Callable[..., StageRun], caplog: pytest.LogCaptureFixture) -> None:
    long = "Answer. " * 60
    run = quick(models=["sft"], system_instruction=long)
    whole = evaluate_stage(quick(models=["sft"]))

    result = evaluate_stage(run)

    assert whole.cut == {}
    cut = result.cut["sft"]["tiny_kind"]
    assert (cut.prompts, cut.of) == (len(KINDS), len(KINDS))
    # The tiny tokenizer has a token a byte: the prompt and the longer answer, of which the last isn't read.
    lengths = [len("".join(sample["arguments"][0]).encode()) for sample in samples(run, "sft", "tiny_kind")]
    assert cut.longest - cut.tokens == POSITIONS + 1
    assert cut.longest <= max(lengths) + len("function")
    assert f"sft tiny_kind: {cut}" in caplog.text


def test_the_seed_chooses_the_examples(quick: Callable[..., StageRun]) -> None:
    def prompts(seed: int) -> list[str]:
        run = quick(tasks=["tiny_module"], models=["sft"], seed=seed, limit=3)
        evaluate_stage(run)
        return [sample["arguments"][0][0] for sample in samples(run, "sft", "tiny_module")]

    assert prompts(1) == prompts(1)
    assert prompts(1) != prompts(2)


def test_any_folder_that_transformers_loads_is_evaluated_under_its_own_name(
    quick: Callable[..., StageRun], trained: Trained
) -> None:
    folder = trained.folder / "sft" / "export"

    run = quick(models={"mine": str(folder)}, limit=2, log_samples=False)

    result = evaluate_stage(run)

    assert result.folders == {"mine": folder}
    assert set(result.scores) == {"mine"}
    assert (run.folder / "results_mine.json").exists()
    assert not list(run.folder.glob("samples_*"))


def test_a_checkpoint_is_scored_as_its_export(trained: Trained, tmp_path: Path) -> None:
    checkpoint = trained.folder / "sft" / "checkpoint" / "step-1"
    common: dict[str, Any] = {"limit": 5, "examples": 0}
    native = evaluation(trained, tmp_path / "native", backend="native", models={"step-1": str(checkpoint)}, **common)
    exported = evaluation(trained, tmp_path / "exported", models=["sft"], **common)

    found, expected = evaluate_stage(native), evaluate_stage(exported)

    for task, scores in expected.scores["sft"].items():
        assert found.scores["step-1"][task] == pytest.approx(scores, rel=1e-6, abs=1e-4)
    answers = [
        [item["resps"] for item in samples(run, name, "tiny_module")]
        for run, name in ((native, "step-1"), (exported, "sft"))
    ]
    assert answers[0] == answers[1]
    assert (found.backend, found.greedy, expected.backend) == ("native", {}, "hf")
    assert ".metadata" in found.digests["step-1"]


def test_settings_of_generation_go_before_the_tasks_own(quick: Callable[..., StageRun]) -> None:
    run = quick(tasks=["tiny_group"], models=["sft"], limit=3, gen_kwargs={"max_gen_toks": 2, "until": []})

    evaluate_stage(run)

    answers = [item["resps"][0][0] for item in samples(run, "sft", "tiny_module")]
    assert 0 < max(map(len, answers)) <= 2
    assert samples(run, "sft", "tiny_module")[0]["arguments"][0][1]["do_sample"] is False


def test_what_was_answered_before_is_not_computed_again(
    quick: Callable[..., StageRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = list(TASKS)
    plain = evaluate_stage(quick(tasks=tasks, models=["sft"]))
    run = quick(tasks=tasks, models=["sft"], cache_requests=True)
    first = evaluate_stage(run)
    computed: list[Any] = []
    for method in ("score", "generate"):
        own = getattr(SharedLM, method)
        monkeypatch.setattr(SharedLM, method, lambda lm, batch, own=own: (computed.append(batch), own(lm, batch))[1])

    again = evaluate_stage(run)

    assert first.scores == again.scores == plain.scores
    assert computed == []
    # The same questions to the same weights with another template, and to other weights.
    template = run.stages["sft"] / "export" / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    evaluate_stage(run)
    with_template = len(computed)
    weights = run.stages["sft"] / "export" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    evaluate_stage(run)
    assert 0 < with_template < len(computed)


def test_a_folder_that_changes_meanwhile_fails_the_stage(
    quick: Callable[..., StageRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = quick(limit=1)
    evaluate_task = titan.evaluate.evaluate.evaluate_task

    def evaluate_and_touch(*args: Any) -> Any:
        (run.stages["sft"] / "export" / "generation_config.json").write_text("{}")
        return evaluate_task(*args)

    monkeypatch.setattr(titan.evaluate.evaluate, "evaluate_task", evaluate_and_touch)

    with pytest.raises(StageFailed, match=r"generation_config\.json changed while sft was evaluated"):
        evaluate_stage(run)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": []}, "no task to evaluate"),
        ({"models": []}, "nothing to evaluate"),
        ({"models": ["sfft"]}, "'sfft' is no stage of this run"),
        ({"models": {"mine": "/nowhere"}}, "no config.json in /nowhere"),
        ({"include_path": "/nowhere"}, "no such folder"),
        ({"taks": []}, "taks"),
    ],
)
def test_bad_input_is_refused(quick: Callable[..., StageRun], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_stage(quick(**settings))


def test_a_model_without_a_template_is_refused_where_one_is_asked_for(quick: Callable[..., StageRun]) -> None:
    run = quick(models=["sft"])
    (run.stages["sft"] / "export" / "chat_template.jinja").unlink()

    with pytest.raises(ConfigError, match="tiny_kind asks through a chat template"):
        evaluate_stage(run)


def failure(run: StageRun) -> StageError:
    """What a stage that fails leaves; its process ends with the status that stands there."""
    with pytest.raises(SystemExit) as ended:
        main(run.folder / "run.yaml")
    error = StageError.model_validate_json((run.folder / "error.json").read_text())
    assert ended.value.code == error.exit_code
    return error


def test_an_unknown_task_ends_in_error_json(quick: Callable[..., StageRun]) -> None:
    run = quick(tasks=["tiny_kidn"])
    (run.folder / "error.json").write_text("of an earlier try")
    (run.folder / "result.json").write_text("of an earlier try")

    error = failure(run)

    assert error.exit_code == 2
    assert error.type == "ConfigError"
    assert "did you mean tiny_kind" in error.message
    assert not (run.folder / "result.json").exists()


def test_what_breaks_inside_a_task_ends_in_error_json(quick: Callable[..., StageRun], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    files = {"test": str(tmp_path / "nothing.jsonl")}
    (broken / "broken.yaml").write_text(
        json.dumps({"task": "broken", "dataset_path": "json", "dataset_kwargs": {"data_files": files}})
    )
    run = quick(tasks=["broken"], include_path=str(broken))

    error = failure(run)

    assert error.exit_code == 1
    assert error.type == "FileNotFoundError"
    assert "nothing.jsonl" in error.message
    assert "Traceback" in error.traceback
