import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from finished_run import REPO, FinishedRun, bring_code
from huggingface_hub import ModelCard
from local_hub import LocalHub

from titanflow.config.keys.after_training import Publish
from titanflow.publish.bundle import bytes_entry, from_export
from titanflow.publish.card.card import card_files, model_card
from titanflow.publish.lineage import read_lineage
from titanflow.publish.publish import publish
from titanflow.runs.contract import StageRun
from titanflow.runs.results import Averaged, GateDecision, InheritanceRow, Threshold
from titanflow.runs.scores.best import Best

EVIL = '<script>alert("1")</script> | a `b` [c](http://evil.example)\nnext'


def card_of(
    finished: FinishedRun, gate: GateDecision | None = None, last: dict[str, Any] | None = None, **settings: Any
) -> str:
    publish = Publish(**settings)
    lineage = replace(read_lineage(finished.to_publish(), publish.model), gate=gate, last=last)
    files = {name: bytes_entry(data) for name, data in card_files(lineage).items()}
    return model_card(lineage, publish, from_export(finished.export) | files).decode()


def write_losses(finished: FinishedRun, *stages: str) -> None:
    for stage in stages:
        lines = [json.dumps({"step": step, "loss": 8 / step}) for step in range(1, 9)]
        (finished.root / stage / "metrics.jsonl").write_text("\n".join(lines) + "\n")


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


def test_a_mean_and_a_best_checkpoint_say_of_what_and_that_nothing_was_trained(finished: FinishedRun) -> None:
    parts = [Averaged(stage="pretrain", step=step, digest="", weight=0.5) for step in (60, 120)]
    finished.train("sft", mean_of=parts, tokens=0)
    mean = " ".join(card_of(finished).split())
    assert "the stage `sft`: the mean of 0.5 of `pretrain` at step 60, 0.5 of `pretrain` at step 120." in mean
    assert "saw 3,400,000 tokens" in mean
    assert "| | pretrain | | --- |" in mean
    best = Best(stage="pretrain", step=60, by="dev/t/acc", value=0.75, scored=3)
    finished.train("sft", mean_of=parts[:1], best=best, tokens=1_700_000)
    chosen = " ".join(card_of(finished).split())
    assert "step 60 of `pretrain`, the best of its 3 scored checkpoints by `dev/t/acc` (0.75), a score" in chosen
    assert "saw 1,700,000 tokens" in chosen


def test_results_side_by_side(finished: FinishedRun) -> None:
    card = card_of(finished)
    assert row(card, "task")[-2:] == ["base", "sft"]
    assert row(card, "stdlib_kind") == ["1.0", "2", "400", "acc ↑", "0.550 ± 0.020", "0.930 ± 0.011"]
    assert row(card, "stdlib_text") == ["2.0", "0", "60", "bits_per_byte ↓", "2.610", "2.720"]
    assert "2.153 bits per byte" in card


def test_the_card_says_which_held_out_rows_were_evaluated(finished: FinishedRun) -> None:
    assert "held-out part" not in card_of(finished)
    finished.evaluate(part="test", left_out={"malformed": 3})
    said = " ".join(card_of(finished).split())
    assert (
        "The items that were prepared here are the held-out part `test`, on which nothing was trained or valid" in said
    )
    assert "validated. Of the rows that were held out, 3 malformed were left out as items." in said


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


def test_items_that_were_trained_on_are_counted_and_none_is_said_too(finished: FinishedRun) -> None:
    finished.evaluate(contamination={"tasks": {"stdlib_kind": {"items": 400}}, "looked_at": ["web<br>"]})
    assert "None of the 400 items was found in the training data (web&#60;br&#62;)." in card_of(finished)

    leaked = {"stdlib_kind": {"items": 400, "leaked": [1, 7]}}
    finished.evaluate(contamination={"tasks": leaked, "looked_at": ["web"], "dropped": True})
    assert "2 of 400 items of stdlib_kind (0.5%) were found in the training data (web)." in card_of(finished)
    assert "These items are not scored." in card_of(finished)


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
    assert row(card, "loss, last (nats)") == ["2.1250", "0.5000"]
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
        "its logits differ by at most 1.2e-07 of the largest",
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
        assert "it imports `modeling_mod.py`, `routed_decoder.py` and `routed_tokens.py` from" in text
        assert "from this repository. They hold" in text if settings else "from the folder. They hold" in text


def test_no_path_of_this_machine(finished: FinishedRun, tmp_path: Path) -> None:
    card = card_of(finished)
    assert str(tmp_path) not in card
    assert "secret.jsonl" not in card


def test_a_card_is_the_same_each_time(finished: FinishedRun) -> None:
    assert card_of(finished) == card_of(finished)


def test_training_data_of_the_hub_is_named_in_the_front_matter(finished: FinishedRun) -> None:
    assert ModelCard(card_of(finished)).data.get("datasets") is None
    run = StageRun.read(finished.root / "sft" / "run.yaml")
    run.config["data"] = {"name": "smoltalk", "dataset": "HuggingFaceTB/smoltalk"}
    run.write()
    assert ModelCard(card_of(finished)).data.datasets == ["HuggingFaceTB/smoltalk"]


def test_what_a_model_says_is_shown_and_does_nothing(finished: FinishedRun) -> None:
    finished.evaluate(
        examples=[{"task": "stdlib_kind", "question": EVIL, "expected": "A class.", "base": EVIL, "sft": EVIL}]
    )
    card = card_of(finished)
    assert "<script" not in card
    assert "](http" not in card.replace("](https://github.com/pytorch/torchtitan)", "")
    line = next(line for line in card.splitlines() if "A class." in line)
    assert line.count("|") == 5
    assert "`" not in line
    assert "<br>next" in line


def test_a_mean_among_the_models_is_explained_and_the_published_one_is_the_last_column(finished: FinishedRun) -> None:
    scores = {name: {"stdlib_kind": {"acc": 0.5}} for name in ("base", "sft", "avg")}
    example = {"question": "Is it red?", "expected": "Yes.", "base": "No.", "sft": "Yes.", "avg": "Perhaps."}
    finished.train("sft", inheritance=[InheritanceRow(key="debug.seed", how="kept", base="0", here="0")])
    finished.evaluate(scores=scores, examples=[{"task": "stdlib_kind", **example}])
    run = StageRun.read(finished.root / "evaluate" / "run.yaml")
    run.config["means"] = {"avg": {"mean": ["base", "sft"], "weights": [0.25, 0.75]}}
    run.write()
    card = card_of(finished)
    assert "`avg` is the mean of base (0.25) and sft (0.75)." in card
    assert "| metric | base | avg | sft |" in card
    assert "| question | expected | base | avg | sft |" in card
    assert "| Is it red? | Yes. | No. | Perhaps. | Yes. |" in card
    assert (
        "Of its base's settings, the stage `sft` inherited 0, kept 1, changed 0; `titanflow.json` lists them." in card
    )


def test_a_name_from_the_config_is_text_too(finished: FinishedRun) -> None:
    finished.train("sft", model_name="<b>|x", flavor="a`b", trackers={"wandb": {"id": "w|`<i>"}})
    card = card_of(finished)
    assert "<b>" not in card
    assert "<i>" not in card


def test_the_loss_curve_is_shown_where_losses_were_logged(finished: FinishedRun) -> None:
    assert "loss.svg" not in card_of(finished)
    write_losses(finished, "pretrain", "sft")
    assert "](loss.svg)" in card_of(finished)
    picture = card_files(read_lineage(finished.to_publish(), "sft"))["loss.svg"].decode()
    assert "pretrain" in picture
    assert "sft" in picture
    assert str(finished.root) not in picture


def test_what_comes_with_a_card_is_the_same_each_time(finished: FinishedRun) -> None:
    write_losses(finished, "pretrain", "sft")
    lineage = read_lineage(finished.to_publish(), "sft")
    assert card_files(lineage) == card_files(lineage)


def test_a_benchmark_of_the_hub_comes_with_the_card(finished: FinishedRun) -> None:
    finished.evaluate(scores={"sft": {"mmlu_pro": {"exact_match": 0.25}}, "base": {}})
    files = card_files(read_lineage(finished.to_publish(), "sft"))
    assert b"TIGER-Lab/MMLU-Pro" in files[".eval_results/mmlu_pro.yaml"]


def test_why_it_was_published(finished: FinishedRun) -> None:
    assert "Why it was published" not in card_of(finished)
    threshold = Threshold(task="stdlib_kind", metric="acc", value=0.93, bound=0.8, passed=True)
    gate = GateDecision(passed=True, reason="every <b>threshold</b>", against="commit 12ab", thresholds=[threshold])
    card = card_of(finished, gate)
    assert "The gate let it pass: every &#60;b&#62;threshold&#60;/b&#62;. It was compared with commit 12ab." in card
    assert "| stdlib_kind | acc | bound 0.8 | 0.93 | passed |" in card.splitlines()


def test_what_was_published_last_stands_beside_it(finished: FinishedRun) -> None:
    evaluation = {"scores": {"sft": {"stdlib_kind": {"acc": 0.875}}}, "task_versions": {"stdlib_kind": "1.0"}}
    stages = {"evaluate": evaluation | {"n_shot": {"stdlib_kind": 2}}}
    card = card_of(finished, last={"run": "run-6", "evaluated_as": "sft", "stages": stages})
    assert row(card, "task")[-1] == "last published (run-6)"
    assert row(card, "stdlib_kind")[-1] == "0.875"
    assert row(card, "stdlib_text")[-1] == "n/a"


def test_how_the_scores_were_made(finished: FinishedRun) -> None:
    finished.evaluate(seeds={"random": 0, "fewshot": 1234})
    assert "lm-evaluation-harness 0.4.13, seeds random 0, fewshot 1234." in card_of(finished)


def test_commands_to_run_it_with(finished: FinishedRun) -> None:
    card = card_of(finished, repo_id="local/stdlib", tag="v1")
    for line in (
        "titanflow chat local/stdlib",
        "vllm serve local/stdlib --revision v1",
        "hf download local/stdlib --revision v1 --local-dir stdlib",
        "lm_eval run --model hf --model_args pretrained=.,dtype=float32 \\",
        "  --tasks stdlib_kind,stdlib_text \\",
    ):
        assert line in card.splitlines()


def test_no_vllm_for_code_that_it_does_not_know(finished: FinishedRun) -> None:
    bring_code(finished.export)
    card = card_of(finished, repo_id="local/stdlib")
    assert "vllm" not in card
    assert "dtype=float32,trust_remote_code=True \\\n  --tasks" in card


def test_all_that_comes_with_a_card_is_pushed_once(finished: FinishedRun, hub: LocalHub) -> None:
    write_losses(finished, "pretrain", "sft")
    finished.evaluate(scores={"sft": {"mmlu_pro": {"exact_match": 0.25}}, "base": {}})
    run = finished.to_publish(target="hub", repo_id=REPO)
    first, again = publish(run), publish(run)
    remote = hub.repos[REPO].files("run-7")
    assert {"README.md", "loss.svg", ".eval_results/mmlu_pro.yaml"} < set(remote)
    assert remote["loss.svg"].startswith(b"<?xml")
    described = json.loads(remote["titanflow.json"])["files"]
    assert {"loss.svg", ".eval_results/mmlu_pro.yaml"} < set(described)
    assert again.commit == first.commit
    assert len(hub.repos[REPO].commits) == 2
    folder = publish(finished.to_publish(target="folder", repo_id=REPO))
    assert folder.files == first.files
    assert (Path(folder.location) / ".eval_results" / "mmlu_pro.yaml").is_file()
