"""A check is a function in a file of ``titanflow/config/checks``, and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from copied_packages import ROOT, copy_packages, run_there
from tiny_experiment import write_tiny_experiment

from titanflow.runs.contract import KINDS

CHECK = '''"""Refuses what this team never wants."""

from titanflow.common.errors import Problem
from titanflow.config.module import Module


def _check_steps(module: Module) -> list[Problem]:
    steps = module.config["training"]["steps"]
    return [] if steps % 4 == 0 else [module.problem("training.steps", f"found {steps}", "a multiple of 4", "round it")]


def _check_examples(module: Module) -> list[Problem]:
    return [module.problem("num_fewshot", "found 3")] if module.config["num_fewshot"] == 3 else []


def _check_private(module: Module) -> list[Problem]:
    return [] if module.config["private"] else [module.problem("private", "found false")]


OF_TRAINING = (_check_steps,)
OF_EVALUATE = (_check_examples,)
OF_PUBLISH = (_check_private,)
'''


@pytest.mark.parametrize("place", ["mine.py", "of_my_team/mine.py"])
def test_a_new_check_is_a_file(tmp_path: Path, place: str) -> None:
    project, configs = copy_packages(tmp_path / "project"), write_tiny_experiment(tmp_path / "tiny")
    file = project / "titanflow/config/checks" / place
    file.parent.mkdir(exist_ok=True)
    (file.parent / "__init__.py").touch()
    file.write_text(CHECK)
    plan = ("-m", "titanflow.cli.main", "plan", "tiny", "--configs", str(configs))
    assert "pretrain" in run_there(project, *plan)

    experiment = configs / "experiments/tiny.yaml"
    experiment.write_text(experiment.read_text().replace("steps: 12", "steps: 10"))
    line = 1 + experiment.read_text()[: experiment.read_text().index("steps: 10")].count("\n")
    settings = ("--set", "evaluate.num_fewshot=3", "--set", "publish.private=false")
    said = run_there(project, *plan, *settings, status=2)

    assert f"tiny.yaml:{line}: pretrain.training.steps: found 10\n    expected: a multiple of 4\n    round it" in said
    assert "evaluate.num_fewshot: found 3" in said
    assert "publish.private: found false" in said
    assert "sft.training" not in said, "8 steps are a multiple of 4"


def test_no_check_of_this_project_is_forgotten() -> None:
    """A function that stands in no tuple, or a tuple by a name that nobody asks for, would check nothing."""
    files = {path: path.read_text() for path in sorted((ROOT / "titanflow/config/checks").rglob("*.py"))}
    sources = [path.read_text() for room in ("titanflow", "titan") for path in (ROOT / room).rglob("*.py")]
    words = Counter(re.findall(r"\w+", "\n".join(sources)))
    own = {path: Counter(re.findall(r"\w+", text)) for path, text in files.items()}
    functions = [(path, name) for path, text in files.items() for name in re.findall(r"^def (\w+)", text, re.MULTILINE)]
    tuples = {name for text in files.values() for name in re.findall(r"^(OF_\w+) = ", text, re.MULTILINE)}

    assert [name for path, name in functions if (own[path] if name[0] == "_" else words)[name] < 2] == []
    assert tuples <= {"OF_TRAINING", *(f"OF_{kind.upper()}" for kind in KINDS)}
