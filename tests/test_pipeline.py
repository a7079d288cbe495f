"""The whole pipeline through the command line, with every real part."""

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml
from command_line import Cli
from forked_ranks import run_stages
from tiny_experiment import question, write_tiny_experiment
from watching import PATIENCE, wait_for

import titanflow
from titanflow.api.loaded import exported
from titanflow.planning.plan import make_plan
from titanflow.report.contents import read_contents
from titanflow.runs.outputs import content_digest
from titanflow.runs.results import read_result

STAGES = ["prepare", "pretrain", "sft", "evaluate", "publish"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> tuple[Cli, list[str]]:
    """A run that went through with a server of its own, in a terminal, and the lines that were left there."""
    cli = Cli(write_tiny_experiment(tmp_path_factory.mktemp("finished")), prefect_home)
    terminal = cli.in_terminal("run")
    try:
        assert terminal.wait() == 0, terminal.screen
    finally:
        terminal.close()
    assert terminal.screen.has_cursor
    return cli, str(terminal.screen).splitlines()


@pytest.fixture(scope="module")
def finished(seen: tuple[Cli, list[str]], api: str) -> Cli:
    """The run of the terminal; the commands after it share a server."""
    return replace(seen[0], api=api)


def states(cli: Cli, *settings: str) -> dict[str, str]:
    return {stage.stage: stage.state for stage in make_plan("tiny", cli.configs, overrides=settings).stages}


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in metrics(folder) if "loss" in line}


def test_the_terminal_shows_what_became_of_each_stage_and_no_notice_of_prefect(seen: tuple[Cli, list[str]]) -> None:
    cli, lines = seen
    first = next(number for number, line in enumerate(lines) if line.startswith("✓ prepare"))
    assert lines[first - 1].startswith("tiny / main  ")
    shown = [re.sub(r"\d+:\d\d", "TIME", line) for line in lines[first : first + 5]]
    assert shown[0] == "✓ prepare     TIME  3 datasets, 7,475 tokens"
    assert shown[1].startswith("✓ pretrain    TIME  step 12, first loss ")
    assert shown[2].startswith("✓ sft         TIME  step 8, first loss ")
    assert shown[3] == "✓ evaluate    TIME  base, sft on 1 tasks"
    assert shown[4] == f"✓ publish     TIME  {cli.run_folder}/publish/model tiny-main"
    # Then comes the summary; before are the plan and whole lines of the log, one for each thing that happened.
    assert lines[first + 5].startswith("╭─ tiny / main")
    assert any("Published" in line for line in lines[first:])
    log = [line.partition(" - ") for line in lines[:first]]
    told = [text for who, _, text in log if who.endswith("Task run 'pretrain llama3'")]
    assert [text.partition(":")[0] for text in told] == [
        "pretrain RUN",
        "pretrain finished",
        "Finished in state Completed()",
    ]
    assert not [line for line in lines if re.search(r"▸|pretrain step|anonymous|View at|warning", line)]


def test_a_finished_run_is_cached(finished: Cli) -> None:
    planned = json.loads(finished("plan", "--json").stdout)["stages"]
    assert {stage["stage"]: stage["state"] for stage in planned} == dict.fromkeys(STAGES, "CACHED") == states(finished)
    before = (finished.run_folder / "manifest.json").read_text()
    done = finished("run", "--json")
    assert done.returncode == 0
    assert list(json.loads(done.stdout)) == STAGES
    assert (finished.run_folder / "manifest.json").read_text() == before


def test_each_stage_left_its_contract(finished: Cli) -> None:
    for stage in STAGES:
        folder = finished.run_folder / stage
        assert (folder / "run.yaml").exists()
        assert json.loads((folder / "result.json").read_text())["stage"] == stage
        assert not (folder / "error.json").exists()
    assert sorted(losses(finished.run_folder / "pretrain")) == list(range(1, 13))
    assert [line["step"] for line in metrics(finished.run_folder / "pretrain") if "validation_loss" in line][-1] == 12


def test_the_manifest_records_inputs_outputs_and_versions(finished: Cli) -> None:
    manifest = json.loads((finished.run_folder / "manifest.json").read_text())
    assert list(manifest["stages"]) == STAGES
    for stage, record in manifest["stages"].items():
        assert record["finished"] >= record["started"]
        assert record["prefect_run"]
        assert all(
            content_digest(finished.run_folder / path) == file["sha256"] for path, file in record["outputs"].items()
        )
        assert record["inputs"]["values"]
        assert f"{stage}/result.json" in record["outputs"]
    assert manifest["versions"]["torchtitan"] == "0.2.2"


def test_what_was_published_is_what_was_evaluated_and_answers(finished: Cli) -> None:
    published = json.loads((finished.run_folder / "publish/result.json").read_text())
    evaluated = json.loads((finished.run_folder / "evaluate/result.json").read_text())
    for name, digest in evaluated["digests"]["sft"].items():
        if name.endswith((".safetensors", ".json")) and name in published["files"]:
            assert published["files"][name] == digest
    from transformers import pipeline

    generate = pipeline("text-generation", model=published["location"])
    answer = generate([{"role": "user", "content": question("stone")}], max_new_tokens=8, do_sample=False)
    assert answer[0]["generated_text"][-1]["role"] == "assistant"
    assert answer[0]["generated_text"][-1]["content"]


@pytest.mark.parametrize("stage", ["pretrain", "sft", "evaluate", "publish"])
def test_each_stage_s_log_begins_with_its_torchrun_line(finished: Cli, stage: str) -> None:
    first = (finished.run_folder / stage / f"{stage}.log").read_text().splitlines()[0]
    assert first.startswith("$ cd ")
    assert " -m torch.distributed.run --nproc_per_node=1 --standalone --local_addr=127.0.0.1 -m " in first


def test_the_log_begins_with_the_command_and_running_it_again_finishes(finished: Cli) -> None:
    folder = finished.run_folder / "sft"
    line = next(line for line in (folder / "sft.log").read_text().splitlines() if "titan.train.train" in line)
    result = (folder / "result.json").read_text()
    done = subprocess.run(line.removeprefix("$ "), shell=True, capture_output=True, text=True, cwd=finished.configs)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "result.json").read_text())["checkpoint"] == json.loads(result)["checkpoint"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("publish.license=mit", ["CACHED", "CACHED", "CACHED", "CACHED", "STALE"]),
        ("evaluate.num_fewshot=1", ["CACHED", "CACHED", "CACHED", "STALE", "STALE"]),
        ("sft.optimizer.lr=1e-3", ["CACHED", "CACHED", "STALE", "STALE", "STALE"]),
        ("pretrain.model.n_layers=1", ["CACHED", "STALE", "STALE", "STALE", "STALE"]),
        ("pretrain.model.vocab_size=330", ["RUN", "STALE", "STALE", "STALE", "STALE"]),
        ("pretrain.metrics.log_freq=3", ["CACHED"] * 5),
        ("launcher.nproc_per_node=2", ["CACHED"] * 5),
    ],
)
def test_a_change_makes_stale_what_depends_on_it(finished: Cli, setting: str, expected: list[str]) -> None:
    assert list(states(finished, setting).values()) == expected


def test_a_changed_text_is_prepared_and_makes_its_training_stale(finished: Cli, tmp_path: Path) -> None:
    other = tmp_path / "text.txt"
    other.write_text((finished.configs.parent / "text.txt").read_text() + "One line more.\n")
    assert states(finished, f"pretrain.data.path={other}")["pretrain"] == "STALE"


def test_an_output_that_is_gone_is_made_again(finished: Cli) -> None:
    weights = next((finished.run_folder / "sft/export").glob("*.safetensors"))
    hidden = weights.rename(weights.with_suffix(".hidden"))
    try:
        assert list(states(finished).values()) == ["CACHED", "CACHED", "RESUME", "RUN", "RUN"]
    finally:
        hidden.rename(weights)


def test_a_killed_run_comes_to_what_an_uninterrupted_one_comes_to(finished: Cli, tmp_path: Path) -> None:
    """Killed in both trainings; the run that it is compared with is there already."""
    (tmp_path / "uninterrupted").symlink_to(finished.run_folder.parent.parent)
    done = replace(finished, api="")("prove-resume", "--kills", "2", "--workspace", str(tmp_path), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    proof = json.loads(done.stdout)
    assert proof["holds"]
    assert {"sft: checkpoint", "sft: export", "evaluate: scores", "publish: once"} <= {
        check["name"] for check in proof["checks"]
    }
    assert [kill["stage"] for kill in proof["kills"]] == ["pretrain", "sft"]
    assert losses(tmp_path / "killed/tiny/main/sft") == losses(finished.run_folder / "sft")


def test_a_failing_stage_says_why_and_the_rest_is_kept(finished: Cli) -> None:
    changed = ["--set", "evaluate.device=cuda:99"]
    refused = finished("run", *changed)
    assert refused.returncode == 2
    assert "evaluate.device: – → cuda:99 (--set evaluate.device=cuda:99)" in refused.stderr
    assert list(states(finished).values()) == ["CACHED"] * 5
    done = finished("run", *changed, "--on-stale", "rerun")
    assert done.returncode == 1
    assert "evaluate" in done.stderr
    assert "CUDA" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((finished.run_folder / "sft/result.json").read_text())["step"] == 8
    assert finished("run").returncode == 0


def test_what_can_be_known_is_refused_before_what_is_there_is_moved(finished: Cli) -> None:
    refused = finished("run", "--set", "evaluate.tasks=[tiny_color]", "--on-stale", "rerun")
    assert refused.returncode == 2
    assert "did you mean tiny_colour" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(states(finished).values()) == ["CACHED"] * 5


SEVERAL = """\
extends: [tiny.yaml]
modules:
  eval_b: {stage: evaluate, config: evaluate.yaml, overrides: {models: [pretrain], tasks: [tiny_colour], chat: false,
    include_path: ../evals, wandb: false}}
  publish: {overrides: {evaluation: evaluate}}
  publish_b: {stage: publish, config: publish.yaml, overrides: {model: pretrain, evaluation: eval_b,
    gate: {thresholds: {tiny_colour/acc: 0}}}}
"""


def test_other_evaluations_and_publications_stand_beside_these(finished: Cli) -> None:
    (finished.configs / "experiments" / "several.yaml").write_text(SEVERAL, encoding="utf-8")
    folder = shutil.copytree(finished.run_folder, finished.run_folder.with_name("several"), symlinks=True)

    def cli(*arguments: str) -> str:
        command = finished.command(*arguments)
        command[command.index("tiny")] = "several"
        return subprocess.run(
            command, env=finished.environment, cwd=folder, capture_output=True, text=True, check=True, timeout=PATIENCE
        ).stdout

    named = ["--run", "several"]
    order = ["prepare", "pretrain", "sft", "evaluate", "eval_b", "publish", "publish_b"]
    todo = {one["stage"]: one["state"] for one in json.loads(cli("plan", *named, "--json"))["stages"]}
    assert todo == dict.fromkeys(order, "CACHED") | {"eval_b": "RUN", "publish_b": "RUN"}
    assert list(json.loads(cli("run", *named, "--json"))) == order
    published = folder / "publish_b" / "model"
    record = json.loads((published / "titanflow.json").read_text(encoding="utf-8"))
    assert (record["model"], record["stages"]["evaluate"]["stage"], record["gate"]["passed"]) == (
        "pretrain",
        "eval_b",
        True,
    )
    assert record["stages"]["evaluate"]["scores"].keys() == {"pretrain"}
    assert "CACHED" in cli("plan", *named)
    # Every reader knows them by their names.
    page = Path(cli("report", *named).strip()).read_text(encoding="utf-8")
    assert all(f"<h2>{one}</h2>" in page for one in ("Results of evaluate", "Results of eval_b"))
    assert all(f"<h2>Publishing by {one}</h2>" in page for one in ("publish", "publish_b"))
    found = titanflow.results(folder)
    assert {one["stage"]: one["model"] for one in found.scores} == {"evaluate": "sft", "eval_b": "pretrain"}
    assert [one["path"] for one in found.paths if one["what"] == "published"][-1] == str(published)
    assert exported(read_contents(folder), None) == exported(read_contents(folder), "publish_b") == published
    shown = cli("run", *named)
    assert all(title in shown for title in ("Evaluation evaluate", "Evaluation eval_b"))
    verified = subprocess.run(
        [sys.executable, "-m", "titanflow.cli.main", "verify", str(published)],
        env=finished.environment, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "as the run published them" in verified.stdout


def test_no_process_is_left_by_a_run_that_is_interrupted(tiny: Cli) -> None:
    process = tiny.start("run", "--set", "pretrain.training.steps=100000")
    wait_for(lambda: (tiny.run_folder / "pretrain/metrics.jsonl").exists(), "training to begin", 300)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    wait_for(lambda: not any(child.is_running() for child in family), "every process to end")
    assert list(tiny.run_folder.glob("pretrain/checkpoint/step-*/.metadata"))


def test_data_that_another_run_prepared_is_only_noted(finished: Cli) -> None:
    planned = json.loads(finished("plan", "--json", "--run", "second").stdout)["stages"][0]
    assert (planned["stage"], planned["state"]) == ("prepare", "RUN")
    assert "other runs prepared" in planned["reason"]


def test_an_sft_starts_from_a_finished_run_s_folder(finished: Cli) -> None:
    base = finished.run_folder / "pretrain"
    experiment = yaml.safe_load((finished.configs / "experiments" / "tiny.yaml").read_text())
    sft = experiment["modules"]["sft"]
    sft["base"] = str(base)
    (finished.configs / "experiments" / "later.yaml").write_text(
        yaml.safe_dump({**experiment, "exp_name": "later", "modules": {"sft": sft}})
    )
    plan = make_plan("later", finished.configs)
    run_stages(plan)
    result, known = read_result(plan.folder / "sft"), read_result(finished.run_folder / "sft")
    assert (result.step, result.model_args, result.tokenizer_digest) == (
        known.step,
        known.model_args,
        known.tokenizer_digest,
    )
    # The same rows and the same weights: the same training as in one experiment.
    assert losses(plan.folder / "sft") == losses(finished.run_folder / "sft")
    assert (plan.folder / "sft" / "export" / "config.json").is_file()
