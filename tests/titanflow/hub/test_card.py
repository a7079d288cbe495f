import math
import re
from pathlib import Path
from typing import Any

import pytest
from finished_run import FinishedRun, bring_code
from huggingface_hub import ModelCard

from titanflow.config.additions import Publish
from titanflow.hub.bundle import from_export
from titanflow.hub.card import model_card, number_text, score_text
from titanflow.hub.lineage import read_lineage


def card_of(finished: FinishedRun, **settings: Any) -> str:
    publish = Publish(**settings)
    lineage = read_lineage(finished.to_publish(), publish.model)
    return model_card(lineage, publish, from_export(finished.export)).decode()


def row(card: str, label: str) -> list[str]:
    line = next(line for line in card.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_front_matter(finished: FinishedRun) -> None:
    card = ModelCard(card_of(finished, language=["en"], tags=["demo"], license="mit"))
    assert card.data.license == "mit"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.language == ["en"]
    assert card.data.tags == ["titanflow", "torchtitan", "demo"]
    assert "base_model" not in card.content.split("---")[1]


def test_the_published_model_s_scores_are_the_model_index(finished: FinishedRun) -> None:
    card = ModelCard(card_of(finished, repo_id="local/stdlib"))
    assert card.data.model_name == "stdlib"
    results = {(result.dataset_type, result.metric_type): result for result in card.data.eval_results or []}
    assert results.keys() == {("stdlib_kind", "acc"), ("stdlib_text", "bits_per_byte")}
    accuracy = results["stdlib_kind", "acc"]
    assert accuracy.metric_value == 0.93
    assert accuracy.dataset_revision == "1.0"
    assert accuracy.dataset_args == {"num_few_shot": 2}


def test_results_side_by_side(finished: FinishedRun) -> None:
    card = card_of(finished)
    assert row(card, "task")[-2:] == ["base", "sft"]
    assert row(card, "stdlib_kind") == ["1.0", "2", "400", "acc ↑", "0.550 ± 0.020", "0.930 ± 0.011"]
    assert row(card, "stdlib_text") == ["2.0", "0", "60", "bits_per_byte ↓", "2.610", "2.720"]
    assert "2.153 bits per byte" in card


def test_a_score_that_one_model_lacks(finished: FinishedRun) -> None:
    finished.evaluate(scores={"base": {"a": {}}, "sft": {"a": {"acc": 0.5}, "b": {"f1": 0.25}}})
    card = card_of(finished)
    assert row(card, "a")[-2:] == ["n/a", "0.500"]
    assert row(card, "b")[-2:] == ["n/a", "0.250"]


def test_scores_of_a_part_are_marked_and_kept_out_of_the_model_index(finished: FinishedRun) -> None:
    finished.evaluate(limit=40)
    card = card_of(finished)
    assert "Only a part of each task was evaluated (limit 40.0)" in card
    assert "model-index" not in card
    assert row(card, "stdlib_kind")[-1] == "0.930 ± 0.011"


def test_no_evaluation(finished: FinishedRun) -> None:
    del finished.stages["evaluate"]
    card = card_of(finished)
    assert "published without an evaluation" in card
    assert "model-index" not in card


def test_both_stages_training(finished: FinishedRun) -> None:
    finished.train("sft", step=40, loss=0.5, tokens=700, seq_len=128, tokens_per_second=None)
    card = card_of(finished)
    assert row(card, "steps") == ["120", "40"]
    assert row(card, "tokens") == ["3,400,000", "700"]
    assert row(card, "sequence length") == ["256", "128"]
    assert row(card, "loss, last (nats/token)") == ["2.1250", "0.5000"]
    assert row(card, "tokens/s") == ["37,700", "n/a"]
    assert row(card, "rows a step") == ["16", "16"]
    assert row(card, "peak learning rate") == ["0.0003", "0.0003"]
    assert "loss on held-out rows" not in card


def test_lineage_names_run_fingerprints_and_digests(finished: FinishedRun) -> None:
    card = card_of(finished)
    weights = from_export(finished.export)["model.safetensors"].sha256
    assert f"sft `model.safetensors`: SHA-256 `{weights}`" in card
    assert "pretrain `model.safetensors`: SHA-256 `pretrain-sha`" in card
    for text in (
        "run `run-7`",
        "`pretrainf1`",
        "`sftf1`",
        "`sft-wandb`",
        "torchtitan 0.2.2",
        "lm_eval 0.4.13",
        "relative_error 1.25e-07",
    ):
        assert text in card


def test_the_code_s_commit_comes_from_the_run_s_manifest(finished: FinishedRun) -> None:
    assert "commit" not in card_of(finished)
    (finished.root / "manifest.json").write_text('{"git": "81dde1c8"}')
    assert "code at commit `81dde1c8`" in card_of(finished)


def test_the_snippet_of_a_chat_model_runs_as_written(finished: FinishedRun) -> None:
    card = card_of(finished, repo_id="local/stdlib", tag="v1")
    snippet = re.search(r"```python\n(.*?)```", card, re.S)
    assert snippet is not None
    calls: list[Any] = []

    def pipeline(*arguments: Any, **options: Any) -> Any:
        calls.append((arguments, options))
        return lambda messages, **settings: [{"generated_text": [*messages, {"content": "an answer"}]}]

    exec(snippet[1].replace("from transformers import pipeline", ""), {"pipeline": pipeline})
    assert calls == [(("text-generation",), {"model": "local/stdlib", "revision": "v1"})]


def test_a_model_without_chat_template_is_prompted_with_text(finished: FinishedRun) -> None:
    (finished.export / "chat_template.jinja").unlink()
    card = card_of(finished)
    assert "messages" not in card
    assert 'generate("Once upon a time"' in card
    assert 'model="path/to/this/folder")' in card


def test_a_model_that_brings_code_says_how_it_is_loaded_and_what_is_run(finished: FinishedRun) -> None:
    assert "trust_remote_code" not in card_of(finished)
    bring_code(finished.export)
    for settings in ({}, {"repo_id": "local/stdlib", "tag": "v1"}):
        card = card_of(finished, **settings)
        snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
        assert snippet is not None
        assert "trust_remote_code=True)" in snippet[1]
        text = " ".join(card.split())
        assert "it imports `modeling_mod.py` and `routed_decoder.py` from" in text
        assert "from this repository. They hold" in text if settings else "from the folder. They hold" in text


def test_no_path_of_this_machine(finished: FinishedRun, tmp_path: Path) -> None:
    card = card_of(finished)
    assert str(tmp_path) not in card
    assert "secret.jsonl" not in card


def test_a_card_is_the_same_each_time(finished: FinishedRun) -> None:
    assert card_of(finished) == card_of(finished)


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ({"acc": 0.5, "acc_stderr": 0.01}, "0.500 ± 0.010"),
        ({"acc": 0.5, "acc_stderr": math.nan}, "0.500"),
        ({}, "n/a"),
        ({"acc": math.inf}, "n/a"),
    ],
)
def test_score_text(scores: dict[str, float], text: str) -> None:
    assert score_text(scores, "acc") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), ("", "n/a"), (1234567, "1,234,567"), (2.5, "2.5000"), (8e-4, "0.0008"), ("a|b", r"a\|b")],
)
def test_number_text(value: Any, text: str) -> None:
    assert number_text(value) == text
