"""Each example is run with its own settings but its size, on bases of some kilobytes from the local Hub."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from example_bases import publish_bases
from example_files import EXAMPLES, THOUGHT, TOOL, answer, question
from forked_ranks import run_stages
from local_hub import LocalHub
from tiny_hub import talk_to

from titanflow.data.tokenizer.tokenizer import described_tokenizer
from titanflow.planning.begin import record_start
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import PublishResult, read_result

pytestmark = pytest.mark.slow
Run = Callable[..., Plan]
SMALL = {
    "own": (
        *("pretrain.training.steps=2", "pretrain.validation.freq=2", "pretrain.lr_scheduler.warmup_steps=1"),
        *("pretrain.model.dim=32", "pretrain.model.n_layers=2", "pretrain.model.vocab_size=320"),
        *("pretrain.metrics.enable_wandb=false", "evaluate.wandb=false"),
    ),
    "hub": (
        *("sft.training.steps=2", "sft.training.seq_len=512", "sft.training.global_batch_size=4"),
        *("sft.training.mixed_precision_param=float32", "sft.validation.freq=2", "sft.validation.steps=1"),
        *("sft.lr_scheduler.warmup_steps=1", "sft.metrics.enable_wandb=false", "evaluate.wandb=false"),
    ),
}


@pytest.fixture
def ran(files: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs an example to its end, or through a stage; its plan."""
    monkeypatch.chdir(files)
    monkeypatch.setenv("HF_HOME", str(files / "home"))
    talk_to(hub, monkeypatch, files / "home" / "hub")
    publish_bases(hub, is_tiny=True)

    def run(name: str, *settings: str, through: str = "publish") -> Plan:
        plan = make_plan(name, overrides=[*SMALL[name[:3]], *settings])
        last = [stage.stage for stage in plan.stages].index(through)
        run_stages(replace(plan, stages=plan.stages[: last + 1]))
        return plan

    return run


def published(plan: Plan) -> PublishResult:
    result = read_result(plan.stage("publish").run.folder)
    assert isinstance(result, PublishResult)
    return result


def trained(plan: Plan) -> list[str]:
    """The trained texts of each conversation that the fine-tuning reads."""
    run = plan.stage("sft").run
    tokens, mask, offsets = (np.load(run.data.train / f"{name}.npy") for name in ("tokens", "trained", "offsets"))
    tokenizer = described_tokenizer(run.tokenizer)
    rows = [slice(*pair) for pair in pairwise(offsets)]
    return [tokenizer.decode(tokens[row][mask[row]].tolist(), skip_special_tokens=False) for row in rows]


def test_every_example_is_run() -> None:
    assert {f"test_{name}" for name in EXAMPLES} <= globals().keys()


def test_own_text(ran: Run) -> None:
    plan = ran("own_text")
    assert published(plan).status == "published"
    scores = read_result(plan.stage("evaluate").run.folder).scores
    assert 0 < scores["base"]["held_out_text"]["bits_per_byte"] < 20


def note_night(plan: Plan) -> None:
    """What the flow notes of a night and its pretraining."""
    plan.night.begin(plan.folder)
    stage, manifest = plan.stage("pretrain"), Manifest.open(plan.folder)
    record_start(stage, manifest)
    manifest.record_finish(stage.run, read_result(stage.run.folder))


def test_own_nightly(ran: Run) -> None:
    note_night(ran("own_nightly", "nightly.date=2026-11-20", through="pretrain"))
    second = ran("own_nightly", "nightly.date=2026-11-21", through="pretrain")
    assert list(second.stage("pretrain").continues) == ["2026-11-20/pretrain"]
    assert read_result(second.stage("pretrain").run.folder).step == 2
    publish = second.stage("publish").run.config
    assert (publish["folder"], publish["gate"]["thresholds"]) == (
        "./runs/published/own_nightly",
        {"held_out_text/bits_per_byte": 3},
    )


def test_hub_sft(ran: Run) -> None:
    plan = ran("hub_sft")
    assert sorted(trained(plan))[0] in {f"{answer(number)}<|im_end|>" for number in range(300)}
    scores = read_result(plan.stage("evaluate").run.folder).scores
    assert {name: list(tasks) for name, tasks in scores.items()} == {
        "base": ["held_out_chats"],
        "sft": ["held_out_chats"],
    }
    assert published(plan).status == "published"


def test_hub_lora(ran: Run) -> None:
    plan = ran("hub_lora")
    folder = plan.stage("sft").run.folder
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))["r"] == 16
    assert published(plan).status == "published"


def test_hub_tools(ran: Run) -> None:
    plan = ran("hub_tools", through="sft")
    texts = trained(plan)
    assert all(text.count("<tool_call>") == 1 and '"name": "look"' in text for text in texts)
    assert not any(TOOL["description"] in text or "seen" in text or "Look again" in text for text in texts)


def test_hub_thinking(ran: Run) -> None:
    plan = ran("hub_thinking", "evaluate.gen_kwargs.max_gen_toks=8")
    texts = trained(plan)
    assert all(text.count(f"<think>\n{THOUGHT}\n</think>") == 1 for text in texts)
    assert not any(question(1) in text for text in texts)
    assert set(read_result(plan.stage("evaluate").run.folder).scores["sft"]["held_out_answers"]) >= {"exact_match"}
    assert published(plan).status == "published"
