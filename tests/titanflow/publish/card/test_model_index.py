from dataclasses import replace
from typing import Any

import pytest
import yaml
from finished_run import FinishedRun, evaluated_stage
from finished_stage import evaluate_result
from huggingface_hub import parse_eval_result_entries

from titanflow.publish.bundle import is_published
from titanflow.publish.card.model_index import benchmark_files, eval_results
from titanflow.publish.lineage import read_evaluated
from titanflow.runs.results import EvaluateResult

GSM8K = {"exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.01, "exact_match,flexible-extract": 0.5}


def evaluated(**changes: Any) -> EvaluateResult:
    values: dict[str, Any] = {
        "scores": {"sft": {"gsm8k": GSM8K, "own": {"acc": 0.5, "acc_stderr": 0.1}}},
        "n_shot": {"gsm8k": 5},
        "versions": {"lm_eval": "0.4.13"},
    }
    return evaluate_result(**(values | changes))


def test_standard_errors_are_no_scores_of_their_own() -> None:
    results = eval_results(evaluated_stage(evaluated())) or []
    assert [(one.dataset_type, one.metric_type) for one in results] == [
        ("gsm8k", "exact_match,strict-match"),
        ("gsm8k", "exact_match,flexible-extract"),
        ("own", "acc"),
    ]


def test_a_benchmark_of_the_hub_has_a_file_of_its_own() -> None:
    files = benchmark_files(evaluated_stage(evaluated()))
    assert list(files) == [".eval_results/gsm8k.yaml"]
    assert all(is_published(name) for name in files)
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[".eval_results/gsm8k.yaml"]))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "gsm8k", 25.0)
    assert entry.source_name == "lm-evaluation-harness 0.4.13"
    assert entry.notes == "5-shot"
    assert entry.date is None


@pytest.mark.parametrize("changes", [{"limit": 40}, {"scores": {"sft": {"gsm8k": {"acc": 0.5}}}}, {"scores": {}}])
def test_a_part_of_a_benchmark_or_another_metric_is_none_of_it(changes: dict[str, Any]) -> None:
    assert benchmark_files(evaluated_stage(evaluated(**changes))) == {}


def test_a_task_of_one_s_own_that_is_called_so_is_no_benchmark(finished: FinishedRun) -> None:
    tasks = finished.root / "evaluate" / "tasks"
    assert read_evaluated(tasks.parent, "sft", finished.export, "").own == frozenset()
    (tasks / "deep").mkdir(parents=True)
    own = "# mine\ntask: gsm8k  # by hand\ndoc_to_text: !function mine.text\n"
    (tasks / "deep" / "own.yaml").write_text(own)
    (tasks / "group.yaml").write_text("group: 'both'\ntask:\n  - a\n  - task: b\n")
    names = read_evaluated(tasks.parent, "sft", finished.export, "").own
    assert names == {"gsm8k", "both"}
    assert benchmark_files(replace(evaluated_stage(evaluated()), own=names)) == {}


@pytest.mark.parametrize(
    "name", ["../x.yaml", ".eval_results/../x.yaml", ".eval_results/a/b.yaml", "eval_results/x.yaml"]
)
def test_only_files_of_that_folder_are_published(name: str) -> None:
    assert not is_published(name)
