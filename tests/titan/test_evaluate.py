import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from recorded import recorded_rows
from tiny_evals import KINDS, MODULES, TEXTS, write_evals
from tiny_exports import (
    POSITIONS,
    SIZES,
    VOCAB,
    save_checkpoint,
    sensitised,
    tiny_args,
    write_byte_tokenizer,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

import titan.evaluate
from titan.eval_lm import SharedLM
from titan.eval_wandb import log_to_wandb
from titan.evaluate import evaluate_stage, main
from titan.export import export_checkpoint
from titanflow.errors import ConfigError, StageFailed
from titanflow.fingerprint import folder_digests
from titanflow.stage import EvaluateResult, PreparedData, StageError, StageRun, read_result
from titanflow.wandb_record import WandbRecord

TASKS = ["tiny_bytes", "tiny_kind", "tiny_module"]


class Bench(NamedTuple):
    folder: Path
    data: Path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Two trained stages and prepared items; only the fine-tuned stage has its export already."""
    folder = tmp_path_factory.mktemp("run")
    tokenizer = write_byte_tokenizer(folder / "tokenizer")
    for seed, stage in enumerate(("pretrain", "sft")):
        StageRun(
            stage=stage,
            experiment="tiny",
            run="monday",
            folder=folder / stage,
            config={"model": {"name": "llama3", "flavor": "debugmodel"}, "training": {"seq_len": POSITIONS}},
            model_overrides={**SIZES["llama3"], "vocab_size": VOCAB},
            tokenizer=tokenizer,
        ).write()
        save_checkpoint(sensitised("llama3", tiny_args("llama3"), seed), folder / stage / "checkpoint" / "step-1")
    export_checkpoint(folder / "sft", folder / "sft" / "export")
    data = folder / "evals"
    data.mkdir()
    return Bench(folder, write_evals(data))


def evaluation(bench: Bench, folder: Path, **settings: Any) -> StageRun:
    config = {"tasks": TASKS, "include_path": str(bench.data / "tasks"), "wandb": False, "bootstrap_iters": 20}
    run = StageRun(
        stage="evaluate",
        experiment="tiny",
        run="monday",
        folder=folder,
        config=config | settings,
        data=PreparedData(train=bench.data),
        stages={"pretrain": bench.folder / "pretrain", "sft": bench.folder / "sft"},
    )
    run.write()
    return run


def clean_environment(**changes: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "HF_"))}
    return kept | {"OMP_NUM_THREADS": "1"} | changes


class Evaluated(NamedTuple):
    run: StageRun
    result: EvaluateResult
    log: str


def under_torchrun(run: StageRun, home: Path, ranks: int, *program: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    return subprocess.run(
        [*launcher, *(program or ("-m", "titan.evaluate")), str(run.folder / "run.yaml")],
        env=clean_environment(HF_HOME=str(home)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def evaluated(bench: Bench) -> Evaluated:
    """A real evaluation under torchrun, on two processes."""
    run = evaluation(bench, bench.folder / "evaluate", wandb=True, batch_size=4, examples=2)
    ended = under_torchrun(run, bench.folder / "huggingface", ranks=2)
    assert ended.returncode == 0, ended.stdout
    result = read_result(run.folder)
    assert isinstance(result, EvaluateResult)
    return Evaluated(run, result, ended.stdout)


@pytest.fixture
def quick(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StageRun]:
    """Stages to evaluate in this process, on copies of the exports."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    copies = tmp_path / "copies"
    for stage in ("pretrain", "sft"):
        shutil.copytree(bench.folder / "sft" / "export", copies / stage / "export")

    def stage(**settings: Any) -> StageRun:
        run = evaluation(bench, tmp_path / "evaluate", **{"tasks": ["tiny_kind"], **settings})
        run.stages = {"pretrain": copies / "pretrain", "sft": copies / "sft"}
        run.write()
        return run

    return stage


def samples(run: StageRun, model: str, task: str) -> list[dict[str, Any]]:
    lines = (run.folder / f"samples_{model}_{task}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


class ByHand:
    """Likelihoods from transformers alone."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def log_likelihood(self, context: list[int], continuation: list[int]) -> float:
        with torch.inference_mode():
            logits = self.model(torch.tensor([context + continuation[:-1]])).logits[0]
        scores = logits.double().log_softmax(-1)[-len(continuation) :]
        return float(scores.gather(1, torch.tensor(continuation)[:, None]).sum())

    def text_log_likelihood(self, text: str) -> float:
        """Each token once, after the end of text and as much of the text as fits."""
        tokens = [0, *self.tokenizer.encode(text)]
        total = 0.0
        for start in range(1, len(tokens), POSITIONS):
            end = min(start + POSITIONS, len(tokens))
            first = max(0, end - POSITIONS - 1) if start > 1 else 0
            total += self.log_likelihood(tokens[first:start], tokens[start:end])
        return total

    def prompt(self, *turns: str) -> str:
        roles = ("user", "assistant")
        messages = [{"role": roles[index % 2], "content": turn} for index, turn in enumerate(turns)]
        rendered = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert isinstance(rendered, str)
        return rendered


@pytest.mark.parametrize(("model", "stage"), [("base", "pretrain"), ("sft", "sft")])
def test_bits_per_byte_are_those_computed_by_hand(bench: Bench, evaluated: Evaluated, model: str, stage: str) -> None:
    by_hand = ByHand(bench.folder / stage / "export")
    assert any(len(by_hand.tokenizer.encode(text)) > POSITIONS for text in TEXTS), "one text needs two windows"

    total = sum(by_hand.text_log_likelihood(text) for text in TEXTS)

    expected = -total / sum(len(text.encode()) for text in TEXTS) / math.log(2)
    assert evaluated.result.scores[model]["tiny_bytes"]["bits_per_byte"] == pytest.approx(expected, rel=1e-5)


def test_accuracy_through_the_chat_template_is_the_one_computed_by_hand(bench: Bench, evaluated: Evaluated) -> None:
    by_hand = ByHand(bench.folder / "sft" / "export")
    right = []
    for question, is_class in KINDS:
        context = by_hand.tokenizer.encode(by_hand.prompt(question))
        scores = [by_hand.log_likelihood(context, by_hand.tokenizer.encode(word)) for word in ("class", "function")]
        right.append((scores[0] > scores[1]) == is_class)

    assert evaluated.result.scores["sft"]["tiny_kind"]["acc"] == pytest.approx(sum(right) / len(right))
    first = samples(evaluated.run, "sft", "tiny_kind")[0]["arguments"][0][0]
    assert first == by_hand.prompt(KINDS[0][0])


def test_answers_are_what_transformers_generates(bench: Bench, evaluated: Evaluated) -> None:
    by_hand = ByHand(bench.folder / "sft" / "export")
    items = samples(evaluated.run, "sft", "tiny_module")

    for item in items:
        prompt = torch.tensor([by_hand.tokenizer.encode(item["arguments"][0][0])])
        out = by_hand.model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=6)
        text = by_hand.tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)
        assert item["resps"][0][0] == text.split("\n")[0]
    right = [item["resps"][0][0] == item["target"] for item in items]
    assert evaluated.result.scores["sft"]["tiny_module"]["exact_match"] == pytest.approx(sum(right) / len(items))


def test_examples_in_the_prompt_are_turns_of_the_conversation(bench: Bench, evaluated: Evaluated) -> None:
    by_hand = ByHand(bench.folder / "sft" / "export")
    answer_of = dict(MODULES)

    prompt = samples(evaluated.run, "sft", "tiny_module")[0]["arguments"][0][0]

    asked = [line for line in prompt.splitlines() if line.startswith("Which")]
    questions = [line.removesuffix("<|im_end|>") for line in asked]
    assert len(questions) == 3
    turns = [turn for question in questions[:2] for turn in (question, answer_of[question])]
    assert prompt == by_hand.prompt(*turns, questions[2])
    assert evaluated.result.n_shot == {"tiny_bytes": 0, "tiny_kind": 0, "tiny_module": 2}


def test_progress_is_told_task_by_task(evaluated: Evaluated) -> None:
    lines = [json.loads(line) for line in (evaluated.run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["steps"], line["model"], line["task"]) for line in lines] == [
        (index + 1, 6, model, task)
        for index, (model, task) in enumerate((m, t) for m in ("base", "sft") for t in TASKS)
    ]
    assert lines[4]["scores"] == evaluated.result.scores["sft"]["tiny_kind"]


def test_the_log_can_be_read(evaluated: Evaluated) -> None:
    lines = evaluated.log.splitlines()

    assert any("5/6 sft tiny_kind: acc 0." in line for line in lines)
    assert any("has no export yet" in line for line in lines)
    assert len(lines) < 20, evaluated.log
    assert "Running loglikelihood requests" in (evaluated.run.folder / "lm_eval.log").read_text()


def test_the_evaluated_bytes_are_named(bench: Bench, evaluated: Evaluated) -> None:
    result = evaluated.result

    assert result.folders == {
        "base": bench.folder / "pretrain" / "export",
        "sft": bench.folder / "sft" / "export",
    }
    assert result.digests == {name: folder_digests(folder) for name, folder in result.folders.items()}
    assert result.digests["base"]["model.safetensors"] != result.digests["sft"]["model.safetensors"]


def test_a_greedy_continuation_is_recorded(bench: Bench, evaluated: Evaluated) -> None:
    by_hand = ByHand(bench.folder / "sft" / "export")
    said = evaluated.result.greedy

    assert set(said) == {"base", "sft"}
    assert said["base"].prompt == said["sft"].prompt
    assert said["base"].continuation != said["sft"].continuation
    tokens = torch.tensor([said["sft"].prompt])
    again = by_hand.model.generate(tokens, do_sample=False, max_new_tokens=16, eos_token_id=None)
    assert again[0, tokens.shape[1] :].tolist() == said["sft"].continuation


def test_what_was_run_is_said(evaluated: Evaluated) -> None:
    result = evaluated.result

    assert result.samples == {"tiny_bytes": len(TEXTS), "tiny_kind": len(KINDS), "tiny_module": len(MODULES)}
    assert result.task_versions == {"tiny_bytes": "1.5", "tiny_kind": "2.0", "tiny_module": "1.0"}
    assert result.higher_is_better["tiny_bytes"] == {"bits_per_byte": False, "byte_perplexity": False}
    assert result.reference == {"xz_bits_per_byte": 2.25}
    assert result.seeds == {"random": 1234, "numpy": 1234, "torch": 1234, "fewshot": 1234}
    assert {"lm_eval", "transformers", "torch", "datasets"} < set(result.versions)
    assert result.limit is None
    kept = json.loads((evaluated.run.folder / "results_sft.json").read_text())
    assert kept["results"]["tiny_kind"]["acc,none"] == result.scores["sft"]["tiny_kind"]["acc"]
    assert kept["config"]["versions"] == result.versions


def test_answers_of_both_models_stand_side_by_side(evaluated: Evaluated) -> None:
    first, second = evaluated.result.examples

    assert set(first) == set(second) == {"task", "question", "expected", "base", "sft"}
    assert (first["task"], first["question"], first["expected"]) == ("tiny_kind", KINDS[0][0], "class")
    assert (second["task"], second["expected"]) == ("tiny_module", MODULES[0][1])
    assert first["sft"] in ("class", "function")


def test_wandb_gets_the_scores_of_all_models_as_one_row(evaluated: Evaluated) -> None:
    run, result = evaluated.run, evaluated.result
    ((_, values),) = recorded_rows(run)

    assert values == {
        f"eval/{model}/{task}/{metric}": value
        for model, tasks in result.scores.items()
        for task, scores in tasks.items()
        for metric, value in scores.items()
    }
    assert {"eval/sft/tiny_bytes/bits_per_byte", "eval/base/tiny_kind/acc_stderr"} <= set(values)
    (folder,) = result.wandb.folders
    assert (run.folder / "wandb" / folder).is_dir()
    assert folder.endswith(result.wandb_id)
    assert (result.wandb.group, result.wandb.job_type) == ("tiny/monday", "evaluate")
    # Both stages lack a result of their own here: what was scored is known by its folder.
    assert [one.type for one in result.wandb.used] == ["dataset", "model", "model"]


def test_a_limited_run_is_marked(quick: Callable[..., StageRun]) -> None:
    run = quick(limit=4, models=["sft"])

    result = evaluate_stage(run)

    assert result.limit == 4
    assert result.samples == {"tiny_kind": 4}
    assert len(samples(run, "sft", "tiny_kind")) == 4


def test_without_the_template_the_question_stands_alone(quick: Callable[..., StageRun]) -> None:
    run = quick(apply_chat_template=False, models=["sft"], limit=1)

    evaluate_stage(run)

    assert samples(run, "sft", "tiny_kind")[0]["arguments"][0][0] == KINDS[0][0]


def test_a_groups_tasks_are_scored_each(quick: Callable[..., StageRun]) -> None:
    result = evaluate_stage(quick(tasks=["tiny_group"], models=["sft"], limit=2))

    assert set(result.scores["sft"]) >= {"tiny_kind", "tiny_module"}
    assert result.samples == {"tiny_kind": 2, "tiny_module": 2}


def test_the_seed_chooses_the_examples(quick: Callable[..., StageRun]) -> None:
    def prompts(seed: int) -> list[str]:
        run = quick(tasks=["tiny_module"], models=["sft"], seed=seed, limit=3)
        evaluate_stage(run)
        return [sample["arguments"][0][0] for sample in samples(run, "sft", "tiny_module")]

    assert prompts(1) == prompts(1)
    assert prompts(1) != prompts(2)


def test_any_folder_that_transformers_loads_is_evaluated_under_its_own_name(
    quick: Callable[..., StageRun], bench: Bench
) -> None:
    folder = bench.folder / "sft" / "export"

    run = quick(models={"mine": str(folder)}, limit=2, log_samples=False)

    result = evaluate_stage(run)

    assert result.folders == {"mine": folder}
    assert set(result.scores) == {"mine"}
    assert (run.folder / "results_mine.json").exists()
    assert not list(run.folder.glob("samples_*"))


def test_a_checkpoint_is_scored_as_its_export(bench: Bench, tmp_path: Path) -> None:
    checkpoint = bench.folder / "sft" / "checkpoint" / "step-1"
    common: dict[str, Any] = {"limit": 5, "examples": 0, "tasks": TASKS}
    native = evaluation(bench, tmp_path / "native", backend="native", models={"step-1": str(checkpoint)}, **common)
    exported = evaluation(bench, tmp_path / "exported", models=["sft"], **common)

    found, expected = evaluate_stage(native), evaluate_stage(exported)

    for task, scores in expected.scores["sft"].items():
        assert found.scores["step-1"][task] == pytest.approx(scores, abs=1e-4)
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
    tasks = ["tiny_bytes", "tiny_kind", "tiny_module"]
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
    evaluate_task = titan.evaluate.evaluate_task

    def evaluate_and_touch(*args: Any) -> Any:
        (run.stages["sft"] / "export" / "generation_config.json").write_text("{}")
        return evaluate_task(*args)

    monkeypatch.setattr(titan.evaluate, "evaluate_task", evaluate_and_touch)

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

    with pytest.raises(ConfigError, match="tiny_kind ask through a chat template"):
        evaluate_stage(run)


def test_an_unknown_task_ends_in_error_json(quick: Callable[..., StageRun]) -> None:
    run = quick(tasks=["tiny_kidn"])
    (run.folder / "error.json").write_text("of an earlier try")
    (run.folder / "result.json").write_text("of an earlier try")

    with pytest.raises(SystemExit) as ended:
        main(run.folder / "run.yaml")

    error = StageError.model_validate_json((run.folder / "error.json").read_text())
    assert ended.value.code == error.exit_code == 2
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

    with pytest.raises(SystemExit) as ended:
        main(run.folder / "run.yaml")

    error = StageError.model_validate_json((run.folder / "error.json").read_text())
    assert ended.value.code == error.exit_code == 1
    assert error.type == "FileNotFoundError"
    assert "nothing.jsonl" in error.message
    assert "Traceback" in error.traceback


def test_one_process_equals_two(bench: Bench, evaluated: Evaluated) -> None:
    run = evaluation(bench, bench.folder / "alone", batch_size=4, examples=2)
    main(run.folder / "run.yaml")

    alone = read_result(run.folder)

    changed = {"seconds": 0.0, "wandb_id": "", "wandb": WandbRecord()}
    assert alone.model_copy(update=changed) == evaluated.result.model_copy(update=changed)
    for path in run.folder.glob("samples_*.jsonl"):
        assert path.read_bytes() == (evaluated.run.folder / path.name).read_bytes()


RANK_ONE_BREAKS = """
import os, sys
from pathlib import Path
import titan.evaluate

load_lm = titan.evaluate.load_lm

def load(loading, ranks):
    if ranks.rank == 1:
        raise MemoryError("no room on the second")
    return load_lm(loading, ranks)

titan.evaluate.load_lm = load
titan.evaluate.main(Path(sys.argv[1]))
"""


def test_what_breaks_on_a_further_rank_ends_all_and_is_told(bench: Bench, tmp_path: Path) -> None:
    run = evaluation(bench, tmp_path / "evaluate", models=["sft"])
    (tmp_path / "breaks.py").write_text(RANK_ONE_BREAKS)

    ended = under_torchrun(run, tmp_path, 2, str(tmp_path / "breaks.py"))
    assert (run.folder / "error.json").exists(), ended.stdout

    error = StageError.model_validate_json((run.folder / "error.json").read_text())
    assert ended.returncode != 0
    assert (error.rank, error.type, error.message) == (1, "MemoryError", "no room on the second")
    assert not (run.folder / "result.json").exists()


def test_scores_outlive_a_logger_that_fails(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for key, value in {"WANDB_MODE": "online", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("WANDB_API_KEY", "no key at all")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")

    run = evaluated.run.model_copy(update={"folder": tmp_path})
    assert log_to_wandb(run, evaluated.result).id == ""
