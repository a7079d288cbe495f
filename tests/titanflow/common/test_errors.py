"""One mistake is told once, whatever number of stages it concerns."""

from titanflow.common.errors import ConfigError, Problem


def told(*problems: Problem) -> list[str]:
    return [str(one) for one in ConfigError(list(problems)).problems]


def of(stage: str, origin: str = "e.yaml:3", hint: str = "") -> Problem:
    return Problem("unknown key", f"{stage}.launcher.x", origin, hint=hint.format(stage))


def test_a_value_that_stages_share_is_one_mistake_with_their_names() -> None:
    hint = "write {}.launcher.y"
    found = told(of("pretrain", hint=hint), Problem("bad", "sft.a", "e.yaml:9"), of("sft", hint=hint))
    assert found == [
        "e.yaml:3: pretrain, sft: launcher.x: unknown key\n    write launcher.y",
        "e.yaml:9: sft.a: bad",
    ]


def test_the_experiment_s_own_word_of_it_is_the_same_mistake() -> None:
    whole = Problem("unknown key", "launcher.x", "e.yaml:3")
    assert told(whole, of("pretrain"), of("sft")) == ["e.yaml:3: pretrain, sft: launcher.x: unknown key"]
    assert told(of("pretrain"), whole) == ["e.yaml:3: pretrain: launcher.x: unknown key"]


def test_two_places_are_two_mistakes() -> None:
    assert len(told(of("pretrain", "e.yaml:3"), of("sft", "e.yaml:4"))) == 2
    # Nobody knows whether what has no place is the same.
    assert len(told(of("pretrain", ""), of("sft", ""))) == 2
    assert len(told(Problem("lacks a", "data", "a.jsonl:1"), Problem("lacks a", "data", "a.jsonl:2"))) == 2


def test_the_same_mistake_twice_is_one() -> None:
    assert told(Problem("no such file", "workspace"), Problem("no such file", "workspace")) == [
        "workspace: no such file"
    ]
    assert told(of("pretrain"), of("pretrain")) == ["e.yaml:3: pretrain.launcher.x: unknown key"]


def test_the_count_is_that_of_the_mistakes() -> None:
    assert str(ConfigError([of("pretrain"), of("sft"), Problem("bad", "a")])).startswith("2 problems:\n")
    assert not str(ConfigError([of("pretrain"), of("sft")])).startswith("2 problems")
