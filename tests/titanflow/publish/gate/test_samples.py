import json
import math
from pathlib import Path
from typing import Any

import pytest
from finished_run import evaluate_result, evaluated_stage, write_samples

from titanflow.publish.gate.samples import Samples, read_samples, task_samples
from titanflow.runs.results import EvaluateResult

SEEDS = {"fewshot": 1234}


def evaluated(**changes: Any) -> EvaluateResult:
    return evaluate_result(**({"folders": {}, "digests": {}} | changes))


def record(number: int, through: str = "none", **metrics: Any) -> dict[str, Any]:
    """A sample as lm-eval logs it."""
    hashes = {"doc_hash": f"doc {number}", "prompt_hash": f"prompt {number}", "target_hash": f"target {number}"}
    texts = {"doc": {"question": "SECRET"}, "target": "SECRET", "arguments": [["SECRET"]], "resps": [["SECRET"]]}
    return {"doc_id": number, **texts, **hashes, "filter": through, "metrics": list(metrics), **metrics}


def write(folder: Path, task: str, records: list[dict[str, Any]], model: str = "sft") -> None:
    lines = "".join(json.dumps(one) + "\n" for one in records)
    (folder / f"samples_{model}_{task}.jsonl").write_text(lines)


def test_what_a_run_scored_is_kept_without_its_texts(tmp_path: Path) -> None:
    records = [record(number, acc=float(number % 2), acc_norm=1.0) for number in range(4)]
    write(tmp_path, "kind", records)
    evaluation = evaluated(
        scores={"sft": {"kind": {"acc": 0.5, "acc_stderr": 0.25, "acc_norm": 1.0}}},
        higher_is_better={"kind": {"acc": True, "acc_norm": True}},
        task_versions={"kind": "1.0"},
        n_shot={"kind": 2},
        seeds=SEEDS,
    )
    # With a temperature, what is drawn depends on the batch.
    settings = {"gen_kwargs": {"temperature": 0.7}, "batch_size": 4, "chat": ["kind"], "system_instruction": "Answer."}
    samples = read_samples(evaluated_stage(evaluation, tmp_path, **settings, tasks=["kind"]))
    assert samples is not None
    kind = samples.tasks["kind"]
    assert (kind.version, kind.n_shot, samples.seeds, samples.lm_eval) == ("1.0", 2, SEEDS, "0.4.13")
    assert kind.metrics["acc"].values == [0.0, 1.0, 0.0, 1.0]
    assert samples.settings == settings
    data = samples.to_bytes()
    assert b"SECRET" not in data
    assert b'"values":[0,1,0,1]' in data
    assert Samples.from_bytes(data) == samples


def test_the_same_scores_are_the_same_bytes_in_whatever_order_they_come(tmp_path: Path) -> None:
    records = [record(number, acc=float(number % 2)) for number in range(6)]
    evaluation = evaluated(scores={"sft": {"stdlib_kind": {"acc": 0.5}}})
    written = []
    for order in (records, records[::-1]):
        write(tmp_path, "stdlib_kind", order)
        samples = read_samples(evaluated_stage(evaluation, tmp_path))
        assert samples is not None
        written.append(samples.to_bytes())
    assert written[0] == written[1]


def test_the_prompt_is_no_part_of_a_sample_s_key() -> None:
    chat = record(1, acc=1.0) | {"prompt_hash": "with a template"}
    plain = task_samples([record(1, acc=1.0)], {"acc": 1.0}, {"acc": True})
    assert task_samples([chat], {"acc": 1.0}, {"acc": True}).keys == plain.keys
    other = record(1, acc=1.0) | {"target_hash": "another answer"}
    assert task_samples([other], {"acc": 1.0}, {"acc": True}).keys != plain.keys


def test_a_document_that_comes_twice_is_two_samples() -> None:
    twice = [record(0, acc=1.0), record(0, acc=0.0) | {"doc_id": 1}]
    task = task_samples(twice, {"acc": 0.5}, {"acc": True})
    assert len(task.keys) == len(set(task.keys)) == 2
    assert task.keys[1] == f"{task.keys[0]}#2"
    assert task.metrics["acc"].values == [1.0, 0.0]


def test_each_filter_is_a_metric_of_its_own() -> None:
    records = [
        record(number, through, exact_match=float(number < matches))
        for through, matches in (("strict", 1), ("flexible", 2))
        for number in range(4)
    ]
    scores = {"exact_match,strict": 0.25, "exact_match,flexible": 0.5}
    task = task_samples(records, scores, {"exact_match": True})
    assert len(task.keys) == 4
    assert task.metrics["exact_match,strict"].values == [1.0, 0.0, 0.0, 0.0]
    assert task.metrics["exact_match,flexible"].values == [1.0, 1.0, 0.0, 0.0]


def test_sums_over_sums_keep_both() -> None:
    texts = [(-300.0, 100), (-500.0, 300)]
    records = [record(number, bits_per_byte=list(pair)) for number, pair in enumerate(texts)]
    task = task_samples(records, {"bits_per_byte": 2 / math.log(2)}, {"bits_per_byte": False})
    metric = task.metrics["bits_per_byte"]
    assert (metric.aggregation, metric.higher_is_better) == ("bits_per_byte", False)
    assert metric.values == [(-300.0, 100.0), (-500.0, 300.0)]


def test_a_perplexity_s_samples_are_log_likelihoods() -> None:
    records = [record(number, perplexity=float(-number)) for number in range(3)]
    task = task_samples(records, {"perplexity": math.e}, {"perplexity": False})
    assert task.metrics["perplexity"].aggregation == "perplexity"


@pytest.mark.parametrize(
    ("values", "score"),
    [
        ([["SECRET reference", "SECRET answer"]] * 2, 30.0),  # BLEU: its samples are texts
        ([1.0, 0.0], 0.7),  # an aggregation of the task's own
        ([1.0, math.nan], 0.5),
        ([1.0, [1.0, 2.0]], 0.5),
        ([[1.0, 0.0], [2.0, 0.0]], 0.5),
    ],
)
def test_a_metric_whose_score_is_not_made_of_its_samples_is_left_out(values: list[Any], score: float) -> None:
    records = [record(number, odd=value) for number, value in enumerate(values)]
    assert task_samples(records, {"odd": score}, {"odd": True}).metrics == {}


def test_without_samples_there_are_none(tmp_path: Path) -> None:
    assert read_samples(evaluated_stage(evaluated(), tmp_path)) is None


def test_what_the_evaluation_wrote_gives_its_scores(tmp_path: Path) -> None:
    evaluation = evaluated()
    write_samples(tmp_path, evaluation)
    samples = read_samples(evaluated_stage(evaluation, tmp_path))
    assert samples is not None
    assert set(samples.tasks) == {"stdlib_kind", "stdlib_text"}
    assert len(samples.tasks["stdlib_kind"].keys) == 400
    assert samples.tasks["stdlib_text"].metrics["bits_per_byte"].aggregation == "bits_per_byte"


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"tasks": {"kind": {"keys": 3}}}', b"\xff"])
def test_a_file_that_is_none_of_these(data: bytes) -> None:
    assert Samples.from_bytes(data) is None
