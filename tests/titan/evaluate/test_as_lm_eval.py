"""An evaluation of tasks of every kind gives lm-eval's own scores and standard errors on the files that it renders."""

import json
from typing import Any

import pytest
from tiny_evaluation import Trained, evaluation, samples, write_trained

from titan.evaluate.evaluate import evaluate_stage
from titan.evaluate.scores import metric_scores
from titanflow.runs.contract import StageRun
from titanflow.runs.results import EvaluateResult

pytestmark = pytest.mark.slow

NAMES = ("alpha", "beta", "gamma", "delta", "omega")
ROWS = [
    {
        "question": f"What kind is {name}{number}?",
        "answer": number % 2,
        "word": name,
        "text": f"{name} is {number}.\n" * (1 + number),
        "beginnings": [f"The {name} is full, so it", f"The {name} is empty, so it"],
    }
    for number, name in enumerate(NAMES * 3)
]
EXAMPLES = [{**row, "question": f"Which is {number}?"} for number, row in enumerate(ROWS[:6])]
FIRST = {"function": "take_first"}
CHOICE: dict[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": ["a class", "a function"],
    "doc_to_target": "answer",
}
GENERATE: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{word}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5, "do_sample": False},
    "filter_list": [
        {"name": "first", "filter": [{"function": "regex", "regex_pattern": "(\\w)"}, {"function": "take_first"}]},
        {"name": "whole", "filter": [{"function": "take_first"}]},
    ],
    "metric_list": [{"metric": "exact_match", "regexes_to_ignore": ["\\W"]}],
}


def metric(*names: str) -> list[dict[str, str]]:
    return [{"metric": name} for name in names]


PLAIN: dict[str, dict[str, Any]] = {
    "last_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}} It is",
        "doc_to_target": " {{word}}",
        "metric_list": metric("perplexity", "acc"),
    },
    "bytes": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": metric("bits_per_byte", "byte_perplexity", "word_perplexity"),
        # A text has no prompt.
        "num_fewshot": 2,
    },
    "kind": CHOICE | {"metric_list": metric("acc", "acc_norm", "acc_mutual_info", "f1", "mcc"), "num_fewshot": 2},
    "beginning": {
        "output_type": "multiple_choice",
        "doc_to_text": "answer",
        "doc_to_choice": "{{beginnings}}",
        "doc_to_target": "was moved.",
        "metric_list": metric("acc"),
    },
    "chosen": CHOICE
    | {
        "metric_list": metric("acc_bytes", "exact_match", "brier_score"),
        "description": "Of {{word}}.\n",
        "num_fewshot": 1,
    },
    "voted": GENERATE
    | {
        "repeats": 3,
        "filter_list": [
            {"name": "vote", "filter": [{"function": "take_first_k", "k": 2}, {"function": "majority_vote"}, FIRST]},
            {"name": "lower", "filter": [{"function": "lowercase"}, {"function": "remove_whitespace"}, FIRST]},
        ],
        "metric_list": metric("exact_match", "chrf", "ter"),
    },
    # One split alone, whose items are their own examples.
    "alone": CHOICE | {"metric_list": metric("acc"), "num_fewshot": 3, "dataset_kwargs": None},
}
CHATS: dict[str, dict[str, Any]] = {
    "chat_kind": CHOICE | {"metric_list": metric("acc", "acc_norm"), "fewshot_split": "dev", "num_fewshot": 2},
    "chat_word": GENERATE | {"fewshot_split": "dev", "fewshot_config": {"sampler": "first_n"}, "num_fewshot": 3},
    "chat_said": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{word}}",
        "description": "Say a word.",
        "gen_prefix": "It is",
        "metric_list": metric("perplexity", "acc"),
        "fewshot_config": {"samples": EXAMPLES[2:]},
        "num_fewshot": 2,
    },
}
ALONE = ("last_word", "bytes", "chosen", "voted")
GROUPS = {
    "plain_group": ["kind", "beginning", "alone"],
    "chat_group": ["chat_kind", "chat_word", "chat_said"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return write_trained(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def evaluated(trained: Trained) -> tuple[StageRun, EvaluateResult]:
    folder = trained.folder / "mine"
    folder.mkdir()
    for name, rows in {"test": ROWS, "dev": EXAMPLES}.items():
        (trained.data / f"{name}_rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"test": "${data}/test_rows.jsonl", "dev": "${data}/dev_rows.jsonl"}
    for name, config in {**PLAIN, **CHATS}.items():
        splits = {"test": files["test"]} if name == "alone" else files
        kwargs = {"dataset_kwargs": {"data_files": splits}}
        whole = {"task": name, "dataset_path": "json", "test_split": "test", **config, **kwargs}
        (folder / f"{name}.yaml").write_text(json.dumps(whole))
    for name, members in GROUPS.items():
        means = [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}]
        group = {"group": name, "task": members, **({"aggregate_metric_list": means} if name == "plain_group" else {})}
        (folder / f"{name}.yaml").write_text(json.dumps(group))
    run = evaluation(
        trained,
        trained.folder / "as_lm_eval",
        include_path=str(folder),
        tasks=[*ALONE, *GROUPS],
        models={"mine": str(trained.folder / "sft" / "export")},
        chat=["chat_group"],
        system_instruction="Answer.",
        batch_size=4,
    )
    return run, evaluate_stage(run)


@pytest.fixture(scope="module")
def theirs(evaluated: tuple[StageRun, EvaluateResult]) -> dict[str, Any]:
    """lm-eval's results and samples, by ``simple_evaluate`` on the rendered files."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    run, result = evaluated
    lm = HFLM(pretrained=str(result.folders["mine"]), dtype="float32", device="cpu", batch_size=4)
    manager = TaskManager(include_path=str(run.folder / "tasks"), include_defaults=False)
    found: dict[str, Any] = {"results": {}, "samples": {}, "n-shot": {}}
    for tasks, chat in (([*ALONE, "plain_group"], False), (["chat_group"], True)):
        part = simple_evaluate(
            model=lm,
            tasks=tasks,
            task_manager=manager,
            bootstrap_iters=20,
            system_instruction="Answer.",
            apply_chat_template=chat,
            fewshot_as_multiturn=True,
        )
        for section in found:
            found[section] |= part[section]
    return found


@pytest.mark.parametrize("task", [*PLAIN, *CHATS, *GROUPS])
def test_scores_and_standard_errors_are_lm_evals(
    evaluated: tuple[StageRun, EvaluateResult], theirs: dict[str, Any], task: str
) -> None:
    _, result = evaluated
    expected = metric_scores(theirs["results"].get(task, {}))

    assert result.scores["mine"].get(task, {}) == pytest.approx(expected, rel=1e-6, abs=1e-4)
    if task not in GROUPS:
        assert expected
    if task not in (*GROUPS, "bytes"):
        assert any("_stderr" in name for name in expected)
        assert result.n_shot[task] == theirs["n-shot"][task]


@pytest.mark.parametrize("task", [*PLAIN, *CHATS])
def test_prompts_and_answers_are_lm_evals(
    evaluated: tuple[StageRun, EvaluateResult], theirs: dict[str, Any], task: str
) -> None:
    run, _ = evaluated
    asked = [(item["doc_id"], item["filter"], item["arguments"]) for item in samples(run, "mine", task)]
    expected = json.loads(
        json.dumps([(item["doc_id"], item["filter"], item["arguments"]) for item in theirs["samples"][task]])
    )
    key = lambda item: item[:2]  # noqa: E731
    assert sorted(asked, key=key) == sorted(map(tuple, expected), key=key)


def test_no_prompt_has_its_own_question_twice(evaluated: tuple[StageRun, EvaluateResult]) -> None:
    run, _ = evaluated
    for item in samples(run, "mine", "alone"):
        assert item["arguments"][0][0].count(item["doc"]["question"]) == 1
        assert item["arguments"][0][0].count("What kind") == 4


def test_each_filter_has_a_score_and_its_error(evaluated: tuple[StageRun, EvaluateResult]) -> None:
    _, result = evaluated
    assert {"exact_match,first", "exact_match_stderr,first", "exact_match,whole", "exact_match_stderr,whole"} == set(
        result.scores["mine"]["chat_word"]
    )
    assert "mcc" in result.scores["mine"]["kind"]
    assert "acc" in result.scores["mine"]["plain_group"]
