"""Scores and answers beside a training that are refused in the plan, each with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain_experiment import write_chain
from tiny_experiment import write_tiny_experiment
from tiny_plans import edit, refusal

from titanflow.common.errors import ConfigError
from titanflow.planning.plan import make_plan


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["pretrain.during.every=6"], ["found 6, and a checkpoint is saved every 4 steps", "a multiple of 4"]),
        (["pretrain.during.every=2"], ["during: {every: 4}"]),
        (["pretrain.during.tasks=[tiny_colour]"], ["nothing is scored: during.every isn't set"]),
        (["pretrain.during.device=cpu"], ["nothing is scored: during.every isn't set"]),
        (["pretrain.samples.max_new_tokens=9"], ["nothing is answered: samples.prompts isn't set"]),
        (["pretrain.during.every=4", "pretrain.during.limit=0"], ["pretrain.during.limit", "found 0"]),
        (["pretrain.during.every=4", "pretrain.during.limit=2.5"], ["pretrain.during.limit", "found 2.5"]),
        (["pretrain.during.every=4", "pretrain.during.tasks=[tiny_color]"], ["did you mean tiny_colour?"]),
        (["pretrain.during.every=4", "pretrain.launcher.pool=gpus"], ["pool gpus, maybe on another machine"]),
        (["pretrain.during.every=4", "pretrain.training.mock_data=true"], ["random tokens"]),
        (["sft.samples.prompts=[hello]"], ["answered at each validation, and there is none"]),
        (["pretrain.samples.prompts=[' ']"], ["found an empty prompt"]),
        (["pretrain.samples.prompts=[a, b, a]"], ["found 'a' twice", "each prompt once"]),
        (["pretrain.samples={prompts: [a], max_new_tokens: 0}"], ["pretrain.samples.max_new_tokens", "found 0"]),
        (["pretrain.samples.prompts=[a]", "pretrain.training.mock_data=true"], ["which are no text"]),
        (["pretrain.samples.prompts=[a]", "pretrain.parallelism.pipeline_parallel_degree=2"], ["pipeline parallelism"]),
    ],
)
def test_each_is_refused_with_its_line_and_what_would_do(
    configs: Path, settings: list[str], expected: list[str]
) -> None:
    message = refusal(configs, *settings)
    assert any(f"--set {setting}: " in message for setting in settings)
    for part in expected:
        assert part in message


def test_a_job_scores_nothing_on_the_way(configs: Path) -> None:
    kind = "pretrain.launcher={kind: slurm, slurm: {time: '1:00'}}"
    assert "a job in a cluster (slurm)" in refusal(configs, "pretrain.during.every=4", kind)


def test_the_file_and_line_are_named(configs: Path) -> None:
    path = configs / "experiments" / "tiny.yaml"
    edit(path, "      checkpoint: {interval: 4}\n", "      checkpoint: {interval: 4}\n      during: {every: 7}\n")
    assert "tiny.yaml:16: pretrain.during.every: found 7" in refusal(configs)


def test_scores_need_an_evaluate_module(configs: Path) -> None:
    path = configs / "experiments" / "tiny.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index("  evaluate:")], encoding="utf-8")
    assert "the experiment has no evaluate module" in refusal(configs, "pretrain.during.every=4")


def test_neither_changes_what_is_trained(configs: Path) -> None:
    plain = make_plan("tiny", configs)
    asked = make_plan("tiny", configs, overrides=["pretrain.during.every=4", "pretrain.samples.prompts=[The]"])
    assert [one.run.fingerprint for one in plan_stages(plain)] == [one.run.fingerprint for one in plan_stages(asked)]


def plan_stages(plan: object) -> list:
    return [stage for stage in plan.stages if stage.stage != "prepare"]


def test_what_is_scored_follows_the_evaluate_module_and_its_dev_part(configs: Path) -> None:
    data = ["evaluate.data.source=stdlib_evals", "evaluate.tasks=[tiny_colour]", "evaluate.num_fewshot=0"]
    plan = make_plan("tiny", configs, overrides=[*data, "pretrain.during={every: 8, limit: 3}"])
    during = plan.stage("pretrain").during
    assert plan.stage("sft").during is None
    config = during.config
    assert (config["tasks"], config["limit"], config["num_fewshot"]) == (["tiny_colour"], 3, 0)
    assert (config["backend"], config["data"]["part"]) == ("native", "dev")
    assert plan.stage("evaluate").run.config["data"]["part"] == "test"
    assert during.data.train != plan.stage("evaluate").run.data.train
    prepared = [one["folder"] for one in plan.stage("prepare").run.config["datasets"]]
    assert str(during.data.train) in prepared


def test_any_training_of_a_chain_is_scored_by_its_own_tasks(tmp_path: Path) -> None:
    chain = write_chain(tmp_path)
    settings = ["mid.during.every=4", "sft_b.during={every: 4, limit: 2}", "evaluate.models=[sft_b]"]
    plan = make_plan("chain", chain, overrides=settings)
    found = {stage.stage: stage.during for stage in plan.stages if stage.during}
    assert {name: during.folder.relative_to(plan.folder).as_posix() for name, during in found.items()} == {
        "mid": "mid/during",
        "sft_b": "sft_b/during",
    }
    assert (found["sft_b"].stage, found["sft_b"].kind, found["sft_b"].config["limit"]) == (
        "sft_b-during",
        "evaluate",
        2,
    )
    with pytest.raises(ConfigError, match=r"sft_b\.during\.every: found 6"):
        make_plan("chain", chain, overrides=["sft_b.during.every=6"])


def test_a_source_without_a_dev_part_is_refused(configs: Path, tmp_path: Path) -> None:
    (configs / "data" / "divided.yaml").write_text(
        f"kind: text\npath: {tmp_path}/heldout.txt\nheld_out: {{test: 3}}\n", encoding="utf-8"
    )
    path = configs / "experiments" / "tiny.yaml"
    edit(path, "config: evaluate.yaml\n", "config: evaluate.yaml\n    data: divided.yaml\n")
    edit(path, "data: text.yaml\n    validation_data: text_heldout.yaml\n", "data: text.yaml\n")
    edit(path, "enable: true", "enable: false")
    message = refusal(configs, "pretrain.during.every=4")
    assert "reads the dev part, and the source holds none out" in message
    assert "pretrain.during.data.held_out" in message
