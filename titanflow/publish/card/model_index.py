"""Scores for programs: the front matter's ``model-index``, and ``.eval_results/*.yaml`` for the Hub's own benchmarks.

The first takes any task. The second is read by the Hub's leaderboards, which accept only datasets that are registered
as a benchmark (https://huggingface.co/docs/hub/eval-results).
"""

from __future__ import annotations

from dataclasses import dataclass

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from titanflow.publish.card.score_table import metrics
from titanflow.publish.lineage import EvaluatedStage

LANGUAGE_MODELING = "text-generation"
EVAL_RESULTS = ".eval_results"
HARNESS_URL = "https://github.com/EleutherAI/lm-evaluation-harness"


@dataclass(frozen=True)
class Benchmark:
    """A task of lm-eval's library that is one of the Hub's benchmarks, which ranks models by ``metric``."""

    task: str
    metric: str
    dataset: str
    task_id: str
    note: str = ""


BENCHMARKS = (
    Benchmark("gsm8k", "exact_match,strict-match", "openai/gsm8k", "gsm8k"),
    Benchmark("gsm8k_cot", "exact_match,strict-match", "openai/gsm8k", "gsm8k", "chain of thought"),
    Benchmark("mmlu_pro", "exact_match", "TIGER-Lab/MMLU-Pro", "mmlu_pro"),
    Benchmark("gpqa_diamond_zeroshot", "acc", "Idavidrein/gpqa", "diamond"),
    Benchmark(
        "gpqa_diamond_cot_zeroshot", "exact_match,flexible-extract", "Idavidrein/gpqa", "diamond", "chain of thought"
    ),
)
"""Registered benchmarks as of November 2026; the Hub wants a file for each variant."""


def eval_results(evaluation: EvaluatedStage) -> list[EvalResult] | None:
    """The published model's scores as entries of the ``model-index``; None if no whole task was scored."""
    result = evaluation.result
    if result.limit is not None:
        return None
    results = [
        EvalResult(
            task_type=LANGUAGE_MODELING,
            dataset_type=task,
            dataset_name=task,
            dataset_revision=result.task_versions.get(task),
            dataset_args={"num_few_shot": result.n_shot[task]} if task in result.n_shot else None,
            metric_type=metric,
            metric_name=metric,
            metric_value=value,
        )
        for task, scores in evaluation.scores.items()
        for metric, value in metrics(scores).items()
    ]
    return results or None


def benchmark_files(evaluation: EvaluatedStage) -> dict[str, bytes]:
    """``.eval_results/<task>.yaml`` for each score that one of the Hub's benchmarks takes.

    There is none for a limited evaluation, nor for a task of the user's own with a benchmark's name. Values
    are percentages, as on the Hub's leaderboards. There is no date: the Hub takes the commit's.
    """
    result = evaluation.result
    if result.limit is not None:
        return {}
    files = {}
    for benchmark in BENCHMARKS:
        scores = metrics(evaluation.scores.get(benchmark.task, {}))
        if benchmark.metric not in scores or benchmark.task in evaluation.own:
            continue
        entry = EvalResultEntry(
            dataset_id=benchmark.dataset,
            task_id=benchmark.task_id,
            value=round(100 * scores[benchmark.metric], 4),
            source_url=HARNESS_URL,
            source_name=f"lm-evaluation-harness {result.versions.get('lm_eval', '')}".strip(),
            notes=", ".join(filter(None, (f"{result.n_shot.get(benchmark.task, 0)}-shot", benchmark.note))),
        )
        text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
        files[f"{EVAL_RESULTS}/{benchmark.task}.yaml"] = text.encode()
    return files
