"""Phases that no training can go through are refused in the plan, with file and line."""

import pytest

from titanflow.config.mixture import mixture_spec, phases_note

EXPERIMENT = """
    exp_name: phased
    modules:
      pretrain:
        config: pretrain.yaml
        model: tiny.yaml
        data: mixed.yaml
    """
DATA = """
    mixture:
      {more}
      sources:
        web: {{path: web.txt{source}}}
        code: {{path: code.txt}}
      phases: {phases}
    """
GOOD = "[{until: 0.8, weights: {web: 3, code: 1}}, {until: 1.0, weights: {code: 1}}]"


def data(phases: str, more: str = "weights: rows", source: str = "") -> str:
    return DATA.format(phases=phases, more=more, source=source)


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        (
            "[{until: 0.8, weights: {web: 1, code: 1}}]",
            ["phases: the last phase ends at 0.8", "expected: 1, the end of the training"],
        ),
        ("[{until: 1.2, weights: {web: 1, code: 1}}]", ["the last phase ends at 1.2"]),
        (
            "[{until: 0.8, weights: {web: 1}}, {until: 0.5, weights: {code: 1}}, {until: 1, weights: {code: 1}}]",
            ["the phases end at 0.8, 0.5, 1", "shares that rise from above 0 to 1"],
        ),
        (
            "[{until: 0.5, weights: {web: 1}}, {until: 0.5, weights: {code: 1}}, {until: 1, weights: {code: 1}}]",
            ["the phases end at 0.5, 0.5, 1"],
        ),
        ("[{until: 0, weights: {web: 1}}, {until: 1, weights: {code: 1}}]", ["the phases end at 0, 1"]),
        (
            "[{until: 0.001, weights: {web: 1}}, {until: 1, weights: {code: 1}}]",
            ["phase 1 has no step of training.steps=100", "give it a larger share, or the training more steps"],
        ),
        (
            "[{until: 1, weights: {web: 1, coda: 1, code: 1}}]",
            ["phase 1 has a weight for 'coda', which is no source", "one of web, code", "did you mean code?"],
        ),
        (
            "[{until: 0.5, weights: {web: 1, code: 1}}, {until: 1, weights: {web: 0}}]",
            ["the weights of phase 2 sum to 0"],
        ),
        ("[{until: 1, weights: {web: 1.0e308, code: 1.0e308}}]", ["the weights of phase 1 sum to inf"]),
        ("[{until: 1, weights: {web: 2, code: -1}}]", ["phase 1 gives code the weight -1"]),
        ("[{until: 1, weights: {web: 2}}]", ["no phase reads code", "or leave the source out"]),
        ("[{until: 1}]", ["phase 1 lacks weights"]),
        ("[{weights: {web: 1, code: 1}, untill: 1}]", ["unknown key 'untill'", "did you mean until?"]),
        ("[{until: '1', weights: {web: 1}}]", ["mixture.phases.1.until: found '1'", "take the quotes off: 1"]),
        ("[{until: 0.5, weights: {web: 1}}, {until: 1, weights: 3}]", ["mixture.phases.2.weights: found 3"]),
        ("[{until: 0.5, weights: {web: 1}}, 3]", ["mixture.phases: found ["]),
        ("{until: 1}", ["mixture.phases: found {"]),
    ],
)
def test_phases_that_cant_be_gone_through_are_refused(write, mistakes, phases: str, expected: list[str]) -> None:
    message = mistakes(write(data__mixed=data(phases), experiments__exp=EXPERIMENT))
    for part in ["configs/data/mixed.yaml:6: pretrain.data.mixture.phases", *expected]:
        assert part in message


@pytest.mark.parametrize(
    ("more", "source", "expected"),
    [
        ("strategy: concat", "", "mixture.strategy: found 'concat', which means nothing with phases"),
        ("stop: all_exhausted", "", "mixture.stop: found 'all_exhausted', which means nothing with phases"),
        ("weights: rows", ", weight: 2", "sources.web.weight: found 2, which means nothing with phases"),
        ("weights: rows", ", epochs: 2", "sources.web.epochs: found 2, which means nothing with phases"),
    ],
)
def test_what_the_phases_leave_nothing_to_say_is_refused(write, mistakes, more, source, expected) -> None:
    assert expected in mistakes(write(data__mixed=data(GOOD, more, source), experiments__exp=EXPERIMENT))


def test_validation_has_no_phases(write, mistakes) -> None:
    both = EXPERIMENT.replace("data: mixed.yaml", "data: mixed.yaml\n        validation_data: mixed.yaml")
    message = mistakes(write(data__mixed=data(GOOD), experiments__exp=both))
    assert "pretrain.validation_data.mixture.phases: found phases, and a validation reads each row once" in message


def test_phases_without_sources_are_refused(write, mistakes) -> None:
    alone = "path: web.txt\nmixture: {phases: [{until: 1, weights: {web: 1}}]}\n"
    message = mistakes(write(data__mixed=alone, experiments__exp=EXPERIMENT))
    assert "phases: found phases, and the mixture has no sources" in message


def test_held_out_rows_are_validated_on_without_phases(write, load) -> None:
    held_out = data(GOOD, "weights: rows", ", held_out: {dev: 0.1}")
    path = write(data__mixed=held_out, experiments__exp=EXPERIMENT)
    config = load(path, "pretrain.validation.enable=true").modules["pretrain"].config
    assert config["validation_data"]["mixture"]["phases"] == []
    assert mixture_spec(config["data"])["phases"][0] == {"until": 0.8, "weights": {"web": 3, "code": 1}}
    assert "phases" not in mixture_spec(config["validation_data"])


def test_the_plan_says_the_steps_and_shares_of_each_phase(write, load) -> None:
    path = write(data__mixed=data(GOOD), experiments__exp=EXPERIMENT)
    config = load(path, "pretrain.training.steps=2000").modules["pretrain"].config
    assert phases_note(config) == ("rows of web 75% and code 25% in steps 1–1,600, then code 100% in steps 1,601–2,000")
