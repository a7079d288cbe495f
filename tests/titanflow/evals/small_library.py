"""An lm-eval with a few tasks in its library, and folders of tasks as a user writes them."""

from collections.abc import Callable
from pathlib import Path

from titanflow.evals import known_names, library

Write = Callable[[dict[str, str]], Path]
EASY = """\
tag:
  - quizzes
task: quiz_easy
dataset_path: me/quiz
metric_list: [{metric: acc}]
"""
ALL = """\
group: all_quizzes
task:
  - quizzes
  - task: sums
    num_fewshot: 2
aggregate_metric_list: [{metric: acc}]
"""
KEYS = (
    *("task", "dataset_path", "dataset_kwargs", "custom_dataset", "process_docs", "process_results"),
    *("test_split", "validation_split", "fewshot_split", "output_type", "metric_list", "metadata"),
    *("doc_to_text", "doc_to_target", "doc_to_choice", "fewshot_config"),
)
METRICS = """\
@register_metric(
    metric="acc",
)
@register_metric(metric="acc_norm")
@register_aggregation("mean")
"""
LIBRARY = {
    "tasks/quiz/quiz_easy.yaml": EASY,
    "tasks/quiz/quiz_hard.yaml": "include: quiz_easy.yaml\ntask: quiz_hard\n",
    "tasks/all/all.yaml": ALL,
    "tasks/sums.yaml": '"task": "sums"\n"dataset_path": me/sums\n',
    "config/task.py": "class TaskConfig(dict):\n" + "".join(f"    {key}: object\n" for key in KEYS),
    "api/metrics.py": METRICS,
}


def forget() -> None:
    """What a process has read of lm-eval is read again."""
    of_names = (known_names.task_keys, known_names.fewshot_keys, known_names.registered, known_names.filters)
    for known in (library.installed_library, library.read_again, *of_names):
        known.cache_clear()


def write_files(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
