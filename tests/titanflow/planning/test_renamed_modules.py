"""Messages call an experiment's modules by their own names, not by those of their kinds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_experiment import EXPERIMENT, write_tiny_experiment

from titanflow.common.errors import TitanflowError
from titanflow.planning.plan import make_plan

NAMES = {"pretrain": "words", "sft": "tune", "evaluate": "judge", "publish": "release"}
OF_A_KIND = re.compile(r"\b(pretrain|sft|prefer|evaluate|publish)\.(?!yaml\b)")
TASKS = {
    "secret": "task: secret\ndataset_path: json\ndataset_kwargs: {data_files: {test: ITEMS}}\ntest_split: test\n"
    "output_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_choice: '{{choices}}'\n"
    "doc_to_target: '{{answer}}'\ndescription: hf_abcdefghijklmnopqrstuvwxyzABCDEFGH\n",
    "vague": "task: vague\ndataset_path: json\ndataset_kwargs: {data_files: {test: ITEMS}}\ntest_split: test\n"
    "output_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\ndoc_to_image: '{{x}}'\n",
}


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    configs = write_tiny_experiment(tmp_path)
    for name, text in TASKS.items():
        (configs / "evals" / f"{name}.yaml").write_text(text.replace("ITEMS", str(tmp_path / "items.jsonl")))
    text = EXPERIMENT.format(root=tmp_path)
    for kind, name in NAMES.items():
        text = text.replace(f"  {kind}:\n", f"  {name}:\n    stage: {kind}\n")
    text = text.replace("    config: sft.yaml\n", "    config: sft.yaml\n    base: words\n")
    text = text.replace("overrides: {tasks:", "overrides: {models: [words, tune], tasks:")
    text = text.replace("    config: publish.yaml\n", "    config: publish.yaml\n    overrides: {model: tune}\n")
    (configs / "experiments" / "tiny.yaml").write_text(text)
    return configs


def test_they_are_planned(configs: Path) -> None:
    assert [stage.stage for stage in make_plan("tiny", configs).stages] == ["prepare", *NAMES.values()]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["judge.tasks=[secret]"], "release.own_tasks: false"),
        (["judge.tasks=[vague]"], "leave vague out of the evaluation's tasks"),
        (["judge.tasks=[nothing]"], "judge.tasks: "),
        (["judge.models=[base, tune]", "judge.limit=3"], "judge.limit: "),
        (["judge.models=[words]"], "release.model: "),
        (["judge.models={a: nowhere}"], "judge.models.a: "),
        (["judge.n_shot=2"], "`judge.num_fewshot`"),
        (["judge.max_steps=2"], "`modules.words.overrides.training.steps`"),
        (["tune.n_shot=2"], "`modules.judge.overrides.num_fewshot`"),
        (["n_shot=2"], "`modules.judge.overrides.num_fewshot`"),
        (["words.hub_model_id=a/b"], "`modules.release.overrides.repo_id`"),
        (["words.learning_rate=1"], "`words.optimizer.lr`"),
        (["hub_token=x"], "a publication's token_block"),
        (["evaluate.tasks=[a]"], "`judge.tasks`"),
        (["publish.folder=x"], "`release.folder`"),
        (["evaluation.tasks=[a]"], "did you mean judge?"),
        (["retries.attempts=0"], "retries has "),
        (["judge.data={source: stdlib_evals, part: train}"], "judge.data.part: "),
        (["judge.data={source: stdlib_evals, part: dev}"], "judge.data.part: "),
        (["release.model=tun"], "release.model: "),
        (["release.evaluation=jugde"], "release.evaluation: "),
        (["release.gate.thresholds={tiny_colour/f1: 1}"], "release.gate.thresholds"),
        (["release.gate.better_than_last=true"], "release.folder: "),
        (["release.gate.better_than_last=true", "judge.log_samples=false"], "judge.log_samples: "),
        (["modules.judge=null", "release.gate.better_than_last=true"], "release.gate.better_than_last: "),
        (["release.checkpoint.best=dev/tiny_colour/acc"], "release.checkpoint.best: "),
        (["words.during.every=4", "words.during.tasks=[tiny_color]"], "words.during.tasks"),
        (["release.target=hub"], "release.repo_id: "),
        (["release.license=other"], "release.license"),
        (["release.gguf=[q4]"], "release.gguf: "),
        (["release.sign_key=nowhere.pem"], "release.sign_key: "),
        (["tune.lora.rank=4", "tune.lora.target_modules=[q_proj]"], "tune.lora.target_modules: "),
        (["words.lora.rank=4"], "words.lora.rank: "),
        (["words.training.steps=0"], "words.training.steps: "),
    ],
)
def test_a_mistake_names_the_modules_that_there_are(configs: Path, settings: list[str], told: str) -> None:
    with pytest.raises(TitanflowError) as refused:
        make_plan("tiny", configs, overrides=settings)
    # The settings themselves say where a mistake was written.
    message = str(refused.value)
    for setting in settings:
        message = message.replace(f"--set {setting}: ", "")
        message = message.replace(f"{setting.partition('=')[0]}: unknown key", "unknown key")
    assert told in message
    assert OF_A_KIND.findall(message) == []
