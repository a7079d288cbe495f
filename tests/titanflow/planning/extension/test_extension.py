"""What a plan makes of more steps for a training that has run."""

from pathlib import Path

import pytest
from finished_without_training import STEP, finish, interrupt
from tiny_experiment import write_tiny_experiment

from titanflow.common.errors import ConfigError
from titanflow.planning.begin import begin_stage
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import StagePlan
from titanflow.planning.view import check_stale, stale_lines
from titanflow.runs.manifest import Manifest
from titanflow.runs.metrics import EVALUATIONS_FILE, SAMPLES_FILE, append_record, read_metrics

CONSTANT = "pretrain.lr_scheduler.decay_ratio=0"
WSD = "pretrain.lr_scheduler.decay_ratio=0.5"


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


def steps(count: int) -> str:
    return f"pretrain.training.steps={count}"


def pretrain(configs: Path, *overrides: str) -> StagePlan:
    stage = make_plan("tiny", configs, overrides=overrides).stage("pretrain")
    assert stage is not None
    return stage


def test_a_constant_rate_goes_on_from_the_last_checkpoint(configs: Path) -> None:
    finish(configs, overrides=[CONSTANT, steps(8)], upto="pretrain")
    plan = make_plan("tiny", configs, overrides=[CONSTANT, steps(12)])
    check_stale(plan)
    stage = plan.stages[1]
    assert (stage.state, stage.reason) == ("EXTEND", "more steps: from step 8 to step 12")
    assert [stage.state for stage in plan.stages[2:]] == ["RUN"] * 3
    assert stage.forecast is not None
    assert stage.forecast.tokens == 4 * 4 * 48


def test_it_says_what_is_validated_and_exported_as_a_run_from_the_start_does(configs: Path) -> None:
    ema = "pretrain.training.ema=0.9"
    finish(configs, overrides=[CONSTANT, ema, steps(8)], upto="pretrain")
    stage = pretrain(configs, CONSTANT, ema, steps(12))
    assert stage.state == "EXTEND"
    assert stage.reason.endswith("; validates and exports the moving mean of its weights (ema 0.9)")


def test_later_stages_are_stale_as_after_any_other_change(configs: Path) -> None:
    finish(configs, overrides=[CONSTANT, steps(8)])
    plan = make_plan("tiny", configs, overrides=[CONSTANT, steps(12)])
    assert [stage.state for stage in plan.stages] == ["CACHED", "EXTEND", "STALE", "STALE", "STALE"]
    with pytest.raises(ConfigError, match="sft: pretrain changed"):
        check_stale(plan)


def test_before_a_decay_in_the_end_it_goes_on_and_the_decayed_step_is_set_aside(configs: Path) -> None:
    plan = finish(configs, overrides=[WSD, steps(16)], upto="pretrain")
    # A decay from step 8 on; finish() left step 8 alone.
    stage = pretrain(configs, WSD, steps(24))
    said = "more steps: from step 8, before its decay, to step 24; what it made after that moves to superseded/"
    assert (stage.state, stage.reason) == ("EXTEND", said)
    folder = plan.folder / "pretrain"
    (folder / "checkpoint" / "step-16").mkdir()
    aside = begin_stage(stage)
    assert aside == plan.folder / "superseded" / "pretrain-1"
    assert sorted(path.name for path in aside.iterdir()) == ["checkpoint", "export", "result.json", "run.yaml"]
    assert [path.name for path in (folder / "checkpoint").iterdir()] == [f"step-{STEP}"]
    assert not (folder / "result.json").exists()
    # Killed now, it is an interrupted stage of its own.
    again = pretrain(configs, WSD, steps(24))
    assert (again.state, again.reason) == ("RESUME", "from step 8")


def test_scores_and_answers_of_steps_that_are_made_anew_are_set_aside(configs: Path) -> None:
    plan = finish(configs, overrides=[WSD, steps(16)], upto="pretrain")
    folder = plan.folder / "pretrain"
    for name in ("step-16", "step-8"):
        (folder / "checkpoint" / name).mkdir(exist_ok=True)
        (folder / "during" / name).mkdir(parents=True)
    for name in (EVALUATIONS_FILE, SAMPLES_FILE):
        for step in (8, 12, 16):
            append_record(folder / name, {"step": step})
    aside = begin_stage(pretrain(configs, WSD, steps(24)))
    assert aside is not None
    for name in (EVALUATIONS_FILE, SAMPLES_FILE):
        assert [one["step"] for one in read_metrics(folder / name)] == [8]
        assert [one["step"] for one in read_metrics(aside / name)] == [8, 12, 16]
    # Held from the decay, it would have been scored in place of the new step 16.
    assert [path.name for path in (folder / "during").iterdir()] == ["step-8"]


def test_a_kill_before_run_yaml_is_written_leaves_a_stage_that_can_be_extended(configs: Path) -> None:
    plan = finish(configs, overrides=[WSD, steps(16)], upto="pretrain")
    for name in ("export/model.safetensors", "result.json"):
        (plan.folder / "pretrain" / name).unlink()
    assert pretrain(configs, WSD, steps(24)).state == "EXTEND"


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (["pretrain.lr_scheduler.decay_type=cosine"], r"a cosine decay \(lr_scheduler.decay_type\) over all steps"),
        (["pretrain.lr_scheduler.decay_type=linear"], r"a linear decay \(lr_scheduler.decay_type\) over all steps"),
        (
            ["pretrain.lr_scheduler.decay_ratio=0.25"],
            "no checkpoint .* before its decay, which began after step 6",
        ),
        ([CONSTANT, "pretrain.lr_scheduler.warmup_steps=10"], "its warm-up was cut to 8 steps, and would have 10"),
    ],
)
def test_what_can_not_be_extended_is_stale_and_says_why_and_what_works(
    configs: Path, schedule: list[str], said: str
) -> None:
    finish(configs, overrides=[*schedule, steps(8)], upto="pretrain")
    plan = make_plan("tiny", configs, overrides=[*schedule, steps(12)])
    assert plan.stages[1].state == "STALE"
    assert "training.steps: 8 → 12" in next(stale_lines(plan.stages[1]))
    with pytest.raises(ConfigError, match=f"8 → 12 .*{said}") as refused:
        check_stale(plan)
    assert "what works: --on-stale rerun" in str(refused.value)
    assert "a new stage with this one as its base" in str(refused.value)


def test_fewer_steps_or_anything_beside_them_are_no_extension(configs: Path) -> None:
    finish(configs, overrides=[CONSTANT, steps(8)], upto="pretrain")
    for overrides in ([steps(4)], [steps(12), "pretrain.optimizer.lr=0.02"], ["pretrain.optimizer.lr=0.02"]):
        assert pretrain(configs, CONSTANT, *overrides).state == "STALE"
    assert pretrain(configs, CONSTANT, steps(8)).state == "CACHED"


def test_keep_keeps_and_rerun_extends(configs: Path) -> None:
    finish(configs, overrides=[CONSTANT, steps(8)], upto="pretrain")
    assert pretrain(configs, CONSTANT, steps(12), "on_stale=keep").kept
    assert pretrain(configs, CONSTANT, steps(12), "on_stale=rerun").state == "EXTEND"


def test_a_schedule_of_its_own_length_takes_more_steps_whatever_its_shape(configs: Path) -> None:
    fixed = ["pretrain.lr_scheduler.total_steps=40", "pretrain.lr_scheduler.decay_type=cosine"]
    finish(configs, overrides=[*fixed, steps(8)], upto="pretrain")
    assert pretrain(configs, *fixed, steps(12)).state == "EXTEND"


def test_a_damaged_checkpoint_and_one_without_a_training_state_are_not_gone_on_from(configs: Path) -> None:
    plan = finish(configs, overrides=[CONSTANT, steps(8)], upto="pretrain")
    file = plan.folder / "pretrain" / "checkpoint" / f"step-{STEP}" / "__0_0.distcp"
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert pretrain(configs, CONSTANT, steps(12)).state == "STALE"


def test_an_interrupted_stage_takes_more_steps_too(configs: Path) -> None:
    plan = finish(configs, overrides=[CONSTANT, steps(16)], upto="prepare")
    interrupt(plan.stages[1], Manifest.open(plan.folder))
    stage = pretrain(configs, CONSTANT, steps(24))
    assert (stage.state, stage.extension and stage.extension.begins) == ("EXTEND", 8)


def test_phases_end_at_shares_of_the_steps(configs: Path) -> None:
    text = configs.parent / "text.txt"
    sources = f"{{a: {{kind: text, path: {text}, limit: 20}}, b: {{kind: text, path: {text}, document: line}}}}"
    phases = "[{until: 0.5, weights: {a: 1, b: 1}}, {until: 1.0, weights: {b: 1}}]"
    (configs / "data" / "phased.yaml").write_text(f"mixture: {{sources: {sources}, phases: {phases}}}\n")
    settings = ["modules.pretrain.data=phased.yaml", CONSTANT]
    finish(configs, overrides=[*settings, steps(8)], upto="pretrain")
    plan = make_plan("tiny", configs, overrides=[*settings, steps(12)])
    with pytest.raises(ConfigError, match=r"8 → 12 .*the borders of its phases .* move with training.steps"):
        check_stale(plan)
