"""Cases 74 to 104: what people write to have a value from the environment, each with its value or its message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from titanflow.config.experiment import Experiment
from titanflow.files.interpolation import interpolate
from titanflow.files.yaml_source import Leaf

Write = Callable[..., Path]
Load = Callable[..., Experiment]


def experiment(top: str) -> str:
    return f"{top}\nmodules:\n  pretrain: {{config: pretrain.yaml, model: tiny.yaml}}\n"


ENVIRONMENT = {
    74: ("user_name: ${TF_X:root}", "1001", "1001"),
    75: ("user_name: ${TF_X:root}", "", ""),
    76: ("user_name: ${TF_X:root}", "/data #1", "/data #1"),
    77: ("user_name: ${TF_X:root}", "[a, b]", "[a, b]"),
    78: ("user_name: ${TF_X:root}", "*", "*"),
    79: ("user_name: ${TF_X:root}", "a: b: c", "a: b: c"),
    80: ("user_name: ${TF_X:root}", "${TF_X}", "${TF_X}"),
    81: ("user_name: ${TF_X:root}", "'quoted'", "'quoted'"),
    82: ("user_name: ${TF_X:root}", None, "root"),
    83: ("user_name: ${TF_X:1001}", None, "1001"),
    84: ("user_name: the ${TF_X}", "${HOME} [1", "the ${HOME} [1"),
    85: ("user_name: ${TF_Y:${TF_X:b}}", "${TF_Y}", "${TF_Y}"),
    86: ("user_name: ${TOKENIZER_PATH:a}${MAX_TOKENS:b}", None, "ab"),
    87: ("user_name: costs $5 and $X", None, "costs $5 and $X"),
}


@pytest.mark.parametrize("case", ENVIRONMENT)
def test_the_environment_says_a_value_once(
    write: Write, load: Load, monkeypatch: pytest.MonkeyPatch, case: int
) -> None:
    top, said, value = ENVIRONMENT[case]
    monkeypatch.delenv("TF_Y", raising=False)
    monkeypatch.delenv("TF_X", raising=False)
    if said is not None:
        monkeypatch.setenv("TF_X", said)
    assert load(write(experiments__exp=experiment(top))).spec.user_name == value


DIALECTS = {
    95: ("${X:-foo}", "found ${X:-foo}\n    expected: ${NAME} or ${NAME:default}"),
    96: ("${ X }", "found ${ X }\n    expected: ${NAME}"),
    97: ("${oc.env:X}", "found ${oc.env:X}\n"),
    98: ("${env.X}", "found ${env.X}\n"),
    99: ("${X", "found ${X\n"),
    100: ("a${}b", "found ${}\n"),
    101: ("${HF_TOKEN:x}", "${HF_TOKEN} looks like a secret"),
    102: ("${WANDB_API_KEY}", "${WANDB_API_KEY} looks like a secret"),
    103: ("a${AWS_SECRET_ACCESS_KEY:}", "${AWS_SECRET_ACCESS_KEY} looks like a secret"),
}


@pytest.mark.parametrize("case", DIALECTS)
def test_another_form_of_reference_is_an_error(write: Write, mistakes: Callable[..., str], case: int) -> None:
    text, message = DIALECTS[case]
    assert f"exp.yaml:1: user_name: {message}" in mistakes(write(experiments__exp=experiment(f"user_name: '{text}'")))


def test_104_a_reference_within_a_list_of_mappings_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_X", "1")
    assert interpolate("a", Leaf([{"b": "${TF_X}"}, ["${TF_X}"]], "f:1"))[0].value == [{"b": 1}, [1]]
