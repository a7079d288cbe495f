"""The chat model from public text: planned as it is, and trained at toy size on rows with the published columns."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked_ranks import run_stages
from hub_storage import Blob, Repo
from local_hub import LocalHub
from own_files import question, sentence
from tiny_experiment import ROOT
from tiny_hub import talk_to

from titanflow.config.settled import precision
from titanflow.data.dataset_info import read_info
from titanflow.data.tokenizer.tokenizer import train_tokenizer
from titanflow.planning.forecast.device import DeviceSpec
from titanflow.planning.forecast.duration import estimated
from titanflow.planning.forecast.forecast import model_forecast
from titanflow.planning.forecast.layout import Layout
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan
from titanflow.runs.results import read_result

NAME = "fineweb_chat"
TOKENIZER = "HuggingFaceTB/SmolLM2-360M"
TRAININGS = ("pretrain", "sft", "prefer")
GIB, HOUR = 1 << 30, 3600
H100 = DeviceSpec("cuda", "NVIDIA H100 80GB HBM3", 80 * GIB)


@pytest.fixture(autouse=True)
def tokenizer_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    train_tokenizer([sentence(number) for number in range(50)], 300, tmp_path / "tokenizer")
    with LocalHub() as hub:
        files = {path.name: Blob(path.read_bytes(), False) for path in (tmp_path / "tokenizer").iterdir()}
        hub.repos[TOKENIZER] = Repo(private=False)
        hub.repos[TOKENIZER].commit("main", "as published", files)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        talk_to(hub, monkeypatch, tmp_path / "home" / "hub")
        yield


def plan(*settings: str) -> Plan:
    return make_plan(NAME, ROOT / "configs", overrides=settings, runs_here=False)


def test_it_is_planned_as_it_is() -> None:
    planned = plan()
    assert [(stage.stage, stage.state) for stage in planned.stages if stage.kind != "prepare"] == [
        (name, "RUN") for name in (*TRAININGS, "evaluate", "publish")
    ]
    # A test has neither the memory nor the GPU.
    found = [line for line in planned.config.warnings if "forecast to " not in line]
    assert len(found) == 2
    assert all("model.attn_type: found 'varlen', which has no backward pass on a CPU" in line for line in found)
    assert planned.stage("pretrain").forecast.parameters == 361_825_216


def test_it_fits_the_gpu_and_the_day_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "stage_device", lambda launcher: H100)
    hours, modules = 0.0, plan().config.modules
    for name in TRAININGS:
        module = modules[name]
        counts, memory, _ = model_forecast(module, "cuda")
        assert 0.3 * H100.memory < memory.total < 0.9 * H100.memory
        layout = Layout.of(module.config)
        tokens = module.config["training"]["steps"] * layout.tokens_per_step
        hours += estimated(counts, tokens, layout, H100).seconds / HOUR
    assert 18 < hours < 26


def test_the_page_has_it() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert f"[{NAME}](../configs/experiments/{NAME}.yaml)" in page


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def said(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": question(number)}, {"role": "assistant", "content": sentence(number)}]


def write_published_columns() -> None:
    """Rows with the columns that the three sets have on the Hub."""
    origin = {"id": "<urn:uuid:0>", "dump": "CC-MAIN-2013-20", "url": "http://a.org", "file_path": "s3://a.warc.gz"}
    scores = {"language": "en", "language_score": 0.9, "token_count": 9, "score": 3.1, "int_score": 3}
    write_rows(Path("web"), [{"text": 20 * sentence(number), **origin, **scores} for number in range(100)])
    chats = [
        {"messages": [*said(number), *said(number + 1)], "source": "smol-magpie-ultra-short"} for number in range(60)
    ]
    write_rows(Path("chats"), chats)
    sides = [
        {
            **{"prompt": question(number), "prompt_id": str(number), "messages": said(number)},
            **{"chosen": said(number), "rejected": [said(number)[0], said(number + 1)[1]]},
            **{"score_chosen": 8.0, "score_rejected": 4.0},
        }
        for number in range(40)
    ]
    # As some of the published pairs are.
    sides.append({**sides[0], "rejected": sides[0]["chosen"]})
    write_rows(Path("pairs"), sides)


@pytest.mark.slow
def test_it_trains_on_the_columns_of_the_published_sets() -> None:
    write_published_columns()
    size = {
        "dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_dim": 16,
        "hidden_dim": 96,
        "vocab_size": 320,
    }
    given = {
        "pretrain.data": {"dataset": "./web", "config": None, "held_out": {"dev": 5, "test": 5}},
        "sft.data": {"dataset": "./chats", "held_out": {"dev": 5, "test": 5}},
        "prefer.data": {"dataset": "./pairs", "split": "train"},
        "sft.model": {"attn_type": "sdpa"},
        "pretrain.model": size,
        **{f"{name}.validation": {"freq": 2, "steps": 1} for name in ("pretrain", "sft")},
        **{
            f"{name}.training": {"steps": 2, "seq_len": 128, "local_batch_size": 2, "global_batch_size": 4}
            for name in TRAININGS
        },
        **{f"{name}.training.mixed_precision_param": "float32" for name in TRAININGS},
        **{f"{name}.lr_scheduler.warmup_steps": 1 for name in TRAININGS},
        **{f"{name}.metrics.enable_wandb": False for name in TRAININGS},
        **{f"{name}.compile.enable": False for name in TRAININGS},
    }
    planned = plan(*(f"{key}={json.dumps(value)}" for key, value in given.items()))
    through = [stage.stage for stage in planned.stages].index("prefer") + 1
    run_stages(replace(planned, stages=planned.stages[:through]))
    assert [read_result(planned.stage(name).run.folder).step for name in TRAININGS] == [2, 2, 2]
    pairs = read_info(planned.stage("prefer").run.data.train)
    assert (pairs.documents, sum(pairs.dropped.values())) == (40, 1)
    template = planned.stage("prefer").run.folder / "export" / "chat_template.jinja"
    assert "<|im_start|>" in template.read_text(encoding="utf-8")
