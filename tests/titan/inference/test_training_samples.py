"""Answers while it trains: those of the exported model, and a training that doesn't notice them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_exports import VOCAB, write_byte_tokenizer
from tiny_stages import MODEL, SEQ_LEN, Workbench, records

from titan.inference.samples import samples_of
from titanflow.config.files.chat_template import CHATML, template_text
from titanflow.runs.contract import PreparedData, StageRun
from titanflow.runs.metrics import SAMPLES_FILE, append_record, read_metrics

pytestmark = pytest.mark.slow

PROMPTS = ["the", "lazy"]
NEW_TOKENS = 12
VALIDATED = {"validation": {"enable": True, "freq": 10, "local_batch_size": 4}}
ASKED = {"samples": {"prompts": PROMPTS, "max_new_tokens": NEW_TOKENS}}
CHATS = {"data": {"kind": "chat"}, "training": {"local_batch_size": 4}}


def trained(bench: Workbench, name: str, ranks: int, *configs: Any) -> StageRun:
    chats, tokenizer = bench.data / "chats", bench.folder / "tokenizer"
    fields = {"data": PreparedData(train=chats, validation=chats)} if CHATS in configs else {}
    if not tokenizer.exists():
        write_byte_tokenizer(tokenizer, template_text(CHATML))
    overrides = {**MODEL, "vocab_size": VOCAB}
    run = bench.stage(name, VALIDATED, *configs, tokenizer=tokenizer, model_overrides=overrides, **fields)
    assert bench.run(run, ranks) == 0, (run.folder / "log.txt").read_text()
    return run


def continued(run: StageRun, text: str, as_chat: bool) -> str:
    """What transformers makes of a text or a user's message, greedily, with the exported model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.folder / "export")
    model = AutoModelForCausalLM.from_pretrained(run.folder / "export", dtype=torch.float32)
    if as_chat:
        message = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    room = min(NEW_TOKENS, SEQ_LEN - tokens.shape[1])
    out = model.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=room)
    ends = model.generation_config.eos_token_id
    answer = out[0, tokens.shape[1] :].tolist()
    return str(tokenizer.decode([one for one in answer if one not in (ends if isinstance(ends, list) else [ends])]))


WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "text on one rank": (1, {}),
    "chats on two": (2, CHATS),
    "tensor parallelism": (2, {"parallelism": {"tensor_parallel_degree": 2}}),
}


@pytest.mark.parametrize(("ranks", "extra"), WAYS.values(), ids=list(WAYS))
def test_answers_are_the_exported_models_and_losses_those_without_them(
    bench: Workbench, ranks: int, extra: dict[str, Any]
) -> None:
    plain, asked = trained(bench, "plain", ranks, extra), trained(bench, "asked", ranks, extra, ASKED)
    assert records(asked) == records(plain)
    assert records(asked, "grad_norm") == records(plain, "grad_norm")
    assert records(asked, "validation_loss") == records(plain, "validation_loss")
    found = read_metrics(asked.folder / SAMPLES_FILE)
    assert [(one["step"], one["prompt"]) for one in found] == [(step, one) for step in (1, 10, 20) for one in PROMPTS]
    last = {one["prompt"]: one["answer"] for one in found if one["step"] == 20}
    assert all(last.values())
    assert last == {prompt: continued(asked, prompt, as_chat=extra is CHATS) for prompt in PROMPTS}
    assert not (plain.folder / SAMPLES_FILE).exists()
    assert f"{PROMPTS[0]} → " in (asked.folder / "log.txt").read_text()


@pytest.mark.parametrize(
    "data",
    [{"kind": "pairs"}, {"kind": "text", "mixture": {"sources": {"a": {"kind": "pairs"}, "b": {"kind": "pairs"}}}}],
)
def test_prompts_of_a_preference_are_user_s_messages(tmp_path: Path, data: dict[str, Any]) -> None:
    tokenizer = tmp_path / "tokenizer"
    write_byte_tokenizer(tokenizer, template_text(CHATML))
    run = StageRun(stage="prefer", experiment="e", run="r", folder=tmp_path, tokenizer=tokenizer, config={"data": data})
    settings = SimpleNamespace(prompts=["lazy"], max_new_tokens=NEW_TOKENS)
    found = samples_of(run, SimpleNamespace(samples=settings, training=SimpleNamespace(seq_len=256)))  # type: ignore[arg-type]
    assert found is not None
    assert "assistant" in found.decode(found.prompts["lazy"])


def test_answers_of_an_attempt_that_was_killed_later_are_given_once(bench: Workbench) -> None:
    run = bench.stage("again", VALIDATED, ASKED, {"training": {"steps": 10}}, tokenizer=bench.data / "tokenizer")
    for step in (0, 1, 10, 11):
        append_record(run.folder / SAMPLES_FILE, {"step": step, "prompt": "left", "answer": "over"})
    assert bench.run(run) == 0, (run.folder / "log.txt").read_text()
    assert [one["step"] for one in read_metrics(run.folder / SAMPLES_FILE)] == [0, 1, 1, 10, 10]


def test_a_prompt_without_room_for_an_answer_is_refused_before_training(bench: Workbench) -> None:
    long = {"samples": {"prompts": ["the quick brown fox " * 8]}}
    run = bench.stage("long", VALIDATED, long, tokenizer=bench.data / "tokenizer")
    assert bench.run(run) == 2
    assert "fewer than training.seq_len=32" in (run.folder / "error.json").read_text()
    assert records(run) == {}
