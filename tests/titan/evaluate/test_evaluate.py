"""A real evaluation under torchrun, on two processes, against what transformers computes by hand."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from recorded import recorded_rows
from tiny_evals import KINDS, MODULES, TASKS, TEXTS
from tiny_evaluation import Trained, evaluation, samples, write_trained
from tiny_exports import POSITIONS
from transformers import AutoModelForCausalLM, AutoTokenizer

from titan.evaluate.evaluate import main
from titan.evaluate.log_scores import log_scores
from titanflow.common.digests import folder_digests
from titanflow.config.keys.after_training import Evaluate
from titanflow.runs.contract import StageRun
from titanflow.runs.errors import StageError
from titanflow.runs.results import EvaluateResult, read_result


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return write_trained(tmp_path_factory.mktemp("run"))


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
        [*launcher, *(program or ("-m", "titan.evaluate.evaluate")), str(run.folder / "run.yaml")],
        env=clean_environment(HF_HOME=str(home)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def evaluated(trained: Trained) -> Evaluated:
    """A real evaluation under torchrun, on two processes."""
    run = evaluation(trained, trained.folder / "evaluate", wandb=True, batch_size=4, examples=2)
    ended = under_torchrun(run, trained.folder / "huggingface", ranks=2)
    assert ended.returncode == 0, ended.stdout
    result = read_result(run.folder)
    assert isinstance(result, EvaluateResult)
    return Evaluated(run, result, ended.stdout)


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
def test_bits_per_byte_are_those_computed_by_hand(
    trained: Trained, evaluated: Evaluated, model: str, stage: str
) -> None:
    by_hand = ByHand(trained.folder / stage / "export")
    assert any(len(by_hand.tokenizer.encode(text)) > POSITIONS for text in TEXTS), "one text needs two windows"

    total = sum(by_hand.text_log_likelihood(text) for text in TEXTS)

    expected = -total / sum(len(text.encode()) for text in TEXTS) / math.log(2)
    assert evaluated.result.scores[model]["tiny_bytes"]["bits_per_byte"] == pytest.approx(expected, rel=1e-5)


def test_accuracy_through_the_chat_template_is_the_one_computed_by_hand(trained: Trained, evaluated: Evaluated) -> None:
    by_hand = ByHand(trained.folder / "sft" / "export")
    right = []
    for question, is_class in KINDS:
        context = by_hand.tokenizer.encode(by_hand.prompt(question))
        scores = [by_hand.log_likelihood(context, by_hand.tokenizer.encode(word)) for word in ("class", "function")]
        right.append((scores[0] > scores[1]) == is_class)

    assert evaluated.result.scores["sft"]["tiny_kind"]["acc"] == pytest.approx(sum(right) / len(right))
    first = samples(evaluated.run, "sft", "tiny_kind")[0]["arguments"][0][0]
    assert first == by_hand.prompt(KINDS[0][0])


def test_answers_are_what_transformers_generates(trained: Trained, evaluated: Evaluated) -> None:
    by_hand = ByHand(trained.folder / "sft" / "export")
    items = samples(evaluated.run, "sft", "tiny_module")

    for item in items:
        prompt = torch.tensor([by_hand.tokenizer.encode(item["arguments"][0][0])])
        out = by_hand.model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=6)
        text = by_hand.tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)
        assert item["resps"][0][0] == text.split("\n")[0]
    right = [item["resps"][0][0] == item["target"] for item in items]
    assert evaluated.result.scores["sft"]["tiny_module"]["exact_match"] == pytest.approx(sum(right) / len(items))


def test_examples_in_the_prompt_are_turns_of_the_conversation(trained: Trained, evaluated: Evaluated) -> None:
    by_hand = ByHand(trained.folder / "sft" / "export")
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


def test_the_evaluated_bytes_are_named(trained: Trained, evaluated: Evaluated) -> None:
    result = evaluated.result

    assert result.folders == {
        "base": trained.folder / "pretrain" / "export",
        "sft": trained.folder / "sft" / "export",
    }
    assert result.digests == {name: folder_digests(folder) for name, folder in result.folders.items()}
    assert result.digests["base"]["model.safetensors"] != result.digests["sft"]["model.safetensors"]


def test_a_greedy_continuation_is_recorded(trained: Trained, evaluated: Evaluated) -> None:
    by_hand = ByHand(trained.folder / "sft" / "export")
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
    assert (result.reference, result.part) == ({"tiny_bytes": 2.25}, "test")
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
    (folder,) = result.trackers["wandb"].folders
    assert (run.folder / "wandb" / folder).is_dir()
    assert folder.endswith(result.trackers["wandb"].id)
    assert (result.trackers["wandb"].group, result.trackers["wandb"].job_type) == ("tiny/monday", "evaluate")
    # Both stages lack a result of their own here: what was scored is known by its folder.
    assert [one.type for one in result.trackers["wandb"].used] == ["dataset", "model", "model"]


def test_one_process_equals_two(trained: Trained, evaluated: Evaluated) -> None:
    run = evaluation(trained, trained.folder / "alone", batch_size=4, examples=2)
    main(run.folder / "run.yaml")

    alone = read_result(run.folder)

    changed = {"seconds": 0.0, "trackers": {}}
    assert alone.model_copy(update=changed) == evaluated.result.model_copy(update=changed)
    for path in run.folder.glob("samples_*.jsonl"):
        assert path.read_bytes() == (evaluated.run.folder / path.name).read_bytes()


RANK_ONE_BREAKS = """
import os, sys
from pathlib import Path
import titan.evaluate.evaluate

load_lm = titan.evaluate.evaluate.load_lm

def load(loading, ranks):
    if ranks.rank == 1:
        raise MemoryError("no room on the second")
    return load_lm(loading, ranks)

titan.evaluate.evaluate.load_lm = load
titan.evaluate.evaluate.main(Path(sys.argv[1]))
"""


def test_what_breaks_on_a_further_rank_ends_all_and_is_told(trained: Trained, tmp_path: Path) -> None:
    run = evaluation(trained, tmp_path / "evaluate", models=["sft"])
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
    assert log_scores(run, Evaluate(wandb=True), evaluated.result)["wandb"].id == ""
