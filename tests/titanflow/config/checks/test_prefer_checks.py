"""What a stage of the kind ``prefer`` can't do, and pairs where something else is trained on, are found by the plan."""

import pytest

from titanflow.common.errors import ConfigError
from titanflow.config.experiment import load_experiment
from titanflow.config.overrides import parse_settings

EXPERIMENT = """
    exp_name: checked
    modules:
      pretrain: {{config: pretrain.yaml, model: tiny.yaml, data: {{path: a.txt}}}}
      sft: {{config: sft.yaml, data: {{kind: chat, path: a.jsonl}}}}
      prefer:
        {base}
        config: null
        data: {data}
        overrides: {overrides}
    """
PAIRS = "{kind: pairs, path: a.jsonl}"


def message_of(write, mistakes, data: str = PAIRS, overrides: str = "{}", base: str = "base: sft") -> str:
    return mistakes(write(experiments__exp=EXPERIMENT.format(data=data, overrides=overrides, base=base)))


@pytest.mark.parametrize(
    ("data", "overrides", "expected"),
    [
        ("{kind: chat, path: a.jsonl}", "{}", ["prefer.data.kind: found chat: preferences are trained on pairs"]),
        ("{path: a.txt}", "{}", ["prefer.data.kind: found text: preferences are trained on pairs", "expected: pairs"]),
        ("null", "{}", ["prefer.data: preference optimisation has nothing to train on"]),
        (PAIRS, "{prefer: {loss: ipo, label_smoothing: 0.1}}", ["prefer.label_smoothing: found 0.1, and ipo has no"]),
        (PAIRS, "{prefer: {label_smoothing: 0.5}}", ["exp.yaml:9: prefer.prefer.label_smoothing: found 0.5"]),
        (PAIRS, "{prefer: {beta: 0}}", ["prefer.prefer.beta: found 0"]),
        (PAIRS, "{prefer: {loss: hinge}}", ["prefer.loss: found 'hinge'", "one of dpo, ipo"]),
        (PAIRS, "{prefer: {bta: 0.1}}", ["prefer.bta", "beta"]),
        (PAIRS, "{chat: {turns: each}}", ["prefer.chat.turns: found each, and a pair is one row"]),
        (PAIRS, "{training: {mock_data: true}}", ["prefer.training.mock_data: random tokens are no pairs"]),
        (
            PAIRS,
            "{parallelism: {context_parallel_degree: 2}}",
            ["prefer.parallelism.context_parallel_degree: found 2: the loss needs the whole of both answers"],
        ),
        (
            "{kind: pairs, path: a.jsonl, overlong: truncate_left}",
            "{}",
            ["prefer.data.overlong: found truncate_left, which would leave each side of a pair another part"],
        ),
        ("{kind: pairs, path: a.jsonl, text_column: body}", "{}", ["text_column: found 'body', which means nothing"]),
        (
            "{kind: pairs, path: a.jsonl, chat_format: alpaca}",
            "{}",
            ["prefer.data.chat_format: found 'alpaca', and pairs have no such layout", "messages or sharegpt"],
        ),
        ("{kind: pairs, source: stdlib_chats}", "{}", ["found 'stdlib_chats', which holds no pairs", "stdlib_pairs"]),
    ],
)
def test_what_preferences_cant_do_is_refused(write, mistakes, data: str, overrides: str, expected: list[str]) -> None:
    message = message_of(write, mistakes, data, overrides)
    for part in expected:
        assert part in message


def test_a_preference_needs_a_base(write, mistakes) -> None:
    assert "a stage of the kind prefer needs a base" in message_of(write, mistakes, base="model: null")
    assert "prefer.base" in message_of(write, mistakes, base="base: nothing_of_this_name")
    assert "a stage of the kind prefer needs a base" in message_of(write, mistakes, base="base: null")


def test_its_module_file_names_none() -> None:
    with pytest.raises(ConfigError, match="a stage of the kind prefer needs a base"):
        load_experiment("chain", None, parse_settings(["prefer.base=null"]))
    mean = parse_settings(["prefer.base={mean: [sft, sft_slow]}"])
    assert load_experiment("chain", None, mean).modules["prefer"].config["base"] == {"mean": ["sft", "sft_slow"]}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("sft: {config: sft.yaml, data: {kind: pairs, path: a.jsonl}}", "found pairs: fine-tuning takes conversations"),
        (
            "other: {stage: pretrain, config: pretrain.yaml, model: tiny.yaml, data: {kind: pairs, path: a.jsonl}}",
            "found pairs, in a pretrain",
        ),
    ],
)
def test_pairs_are_trained_in_a_preference_alone(write, mistakes, module: str, expected: str) -> None:
    experiment = """
    exp_name: checked
    modules:
      pretrain: {config: pretrain.yaml, model: tiny.yaml, data: {path: a.txt}}
      MODULE
    """
    message = mistakes(write(experiments__exp=experiment.replace("MODULE", module)))
    assert expected in message
    assert "a stage of the kind prefer trains on pairs" in message
