"""The families with routed layers from their texts up to a folder that others load and score.

Each stage is what the command line would start, and no flow is between them: a flow knows of no family, and
``test_pipeline.py`` has all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from forked_ranks import run_stages
from tiny_experiment import leave_out_fine_tuning, write_tiny_experiment

from titanflow.planning.plan import make_plan

pytestmark = pytest.mark.slow
FAMILIES = ("mod", "dtf", "tdtf")
FINE_TUNED = "mod"
"""The family that goes through every stage; the others are published as they were pretrained."""
SHAPE = {"dim": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "hidden_dim": 64, "vocab_size": 320}

LOAD = """
import json, sys
sys.modules["titan"] = sys.modules["titanflow"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
answers = {}
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    prompts = tokenizer(["The stone is", "I saw 7"], return_tensors="pt", padding=True, padding_side="left")
    answers[folder] = model.generate(**prompts, max_new_tokens=6, eos_token_id=None)[:, -6:].tolist()
print(json.dumps(answers))
"""


def write_experiment(root: Path, family: str) -> Path:
    """The tiny experiment with a model of the family."""
    configs = write_tiny_experiment(root)
    model = {"model": {"name": family, "flavor": "debugmodel", **SHAPE}}
    (configs / "models" / "tiny.yaml").write_text(yaml.safe_dump(model))
    return configs if family == FINE_TUNED else leave_out_fine_tuning(configs)


def stage_by_stage(configs: Path) -> Path:
    """The folder of a finished run."""
    plan = make_plan("tiny", configs)
    run_stages(plan)
    return plan.folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a finished run of each family."""
    return {family: stage_by_stage(write_experiment(tmp_path_factory.mktemp(family), family)) for family in FAMILIES}


def published(run: Path) -> Path:
    return Path(json.loads((run / "publish/result.json").read_text())["location"])


def test_what_was_published_loads_where_this_package_is_not(runs: dict[str, Path], tmp_path: Path) -> None:
    """All in one process: their files share names, and one may not get in another's way."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = [str(published(run)) for run in runs.values()]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *folders],
        env={**os.environ, "PYTHONPATH": "", "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for folder in folders:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
        for text, found in zip(["The stone is", "I saw 7"], answers[folder], strict=True):
            alone = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=6, eos_token_id=None)
            assert found == alone[0, -6:].tolist()


def scored_by_lm_eval(run: Path, out: Path) -> list[dict[str, Any]]:
    """What lm-eval's own command line makes of the published folder; its samples."""
    arguments = f"pretrained={published(run)},trust_remote_code=True,dtype=float32"
    model = ["--model", "hf", "--model_args", arguments, "--device", "cpu", "--batch_size", "4"]
    tasks = ["--tasks", "tiny_colour", "--include_path", str(run / "evaluate" / "tasks")]
    options = ["--apply_chat_template", "--log_samples", "--output_path", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", "run", *model, *tasks, *options],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        cwd=out,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return read_samples(next(out.rglob("samples_*.jsonl")))


def read_samples(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lm_eval_s_command_line_scores_it_as_the_run_did(runs: dict[str, Path], tmp_path: Path) -> None:
    run = runs[FINE_TUNED]
    own = read_samples(run / "evaluate" / "samples_sft_tiny_colour.jsonl")

    theirs = {sample["doc_id"]: sample for sample in scored_by_lm_eval(run, tmp_path)}

    assert len(theirs) == len(own) == 8
    for sample in own:
        found = [float(score) for score, _ in theirs[sample["doc_id"]]["filtered_resps"]]
        assert found == pytest.approx([score for score, _ in sample["filtered_resps"]], abs=1e-4)
        assert theirs[sample["doc_id"]]["acc"] == sample["acc"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_modelling_files_are_published(runs: dict[str, Path], family: str) -> None:
    folder = published(runs[family])
    files = json.loads((runs[family] / "publish/result.json").read_text())["files"]

    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == files.keys()
    assert {f"modeling_{family}.py", "routed_decoder.py", "routed_tokens.py"} <= files.keys()
    assert "trust_remote_code=True" in (folder / "README.md").read_text()


def test_what_was_published_is_what_was_evaluated(runs: dict[str, Path]) -> None:
    folder = runs[FINE_TUNED]
    files = json.loads((folder / "publish/result.json").read_text())["files"]
    evaluated = json.loads((folder / "evaluate/result.json").read_text())["digests"]["sft"]

    assert evaluated.items() < files.items()
