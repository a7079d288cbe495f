"""A name that torchtitan would look up hours later is refused in the plan."""

import pytest

CASES = {
    "optimizer.name=Adma": ("optimizer.name: found 'Adma'", "did you mean Adam?"),
    "model.converters=[primus_turbo]": ("model.converters: found 'primus_turbo'", "one of quantize.linear.float8"),
    "compile.components=[model, lost]": ("compile.components: found 'lost'", "did you mean loss?"),
    "parallelism.pipeline_parallel_schedule=1F2B": ("found '1F2B'", "did you mean 1F1B?"),
    "activation_checkpoint.selective_ac_option=ops": (
        "selective_ac_option: found 'ops'",
        'op, or every how many layers: "2"',
    ),
    "activation_checkpoint.selective_ac_option=0": ("selective_ac_option: found '0'", "op, or"),
}


@pytest.mark.parametrize("setting", CASES)
def test_a_name_that_nothing_answers_to(write, mistakes, setting: str) -> None:
    message = mistakes(write(), f"pretrain.{setting}")
    for part in CASES[setting]:
        assert part in message


def test_what_is_known_passes(write, load) -> None:
    for setting in ("optimizer.name=Adam", "parallelism.pipeline_parallel_schedule=1f1b", "compile.components=[loss]"):
        load(write(), f"pretrain.{setting}")


def test_a_stage_needs_torchft_for_its_fault_tolerance(write, mistakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = mistakes(write(), "pretrain.fault_tolerance.enable=true")
    assert "pretrain.fault_tolerance.enable: torchft isn't installed" in message
