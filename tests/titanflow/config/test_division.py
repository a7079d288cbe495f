"""What each section reads of a divided source, and what about it is refused in the plan."""

from __future__ import annotations

from typing import Any

import pytest

DATA = "path: text.jsonl\nheld_out: {dev: 0.01, test: 200}\n"
EXPERIMENT = """
    exp_name: divided
    modules:
      pretrain:
        config: pretrain.yaml
        model: tiny.yaml
        data: mine.yaml
        %s
        overrides:
          validation: {enable: true}
      evaluate:
        data: mine.yaml
        overrides: {tasks: [a]}
    """


def resolved(write, load, *settings: str, more: str = "", data: str = DATA) -> dict[str, Any]:
    path = write(data__mine=data, data__other="path: other.jsonl\n", experiments__exp=EXPERIMENT % more)
    return load(path, *settings).modules


def refused(write, mistakes, *settings: str, more: str = "", data: str = DATA) -> str:
    path = write(data__mine=data, data__other="path: other.jsonl\n", experiments__exp=EXPERIMENT % more)
    return mistakes(path, *settings)


def test_one_data_file_is_trained_on_validated_on_and_evaluated_in_its_own_parts(write, load) -> None:
    modules = resolved(write, load)
    pretrain, evaluate = modules["pretrain"].config, modules["evaluate"].config
    assert (pretrain["data"]["part"], pretrain["validation_data"]["part"]) == ("train", "dev")
    assert evaluate["data"]["part"] == "test"
    assert pretrain["validation_data"] | {"part": "train"} == pretrain["data"]
    origins = modules["pretrain"].origins
    assert origins["validation_data.path"] == origins["data.path"]
    assert origins["validation_data.part"] == "the dev part of data"


def test_a_file_that_is_named_for_validation_is_read_in_the_same_part(write, load) -> None:
    by_itself = resolved(write, load)["pretrain"].config["validation_data"]
    assert resolved(write, load, more="validation_data: mine.yaml")["pretrain"].config["validation_data"] == by_itself


def test_other_rows_to_validate_on_go_before_the_dev_part(write, load) -> None:
    found = resolved(write, load, more="validation_data: other.yaml")["pretrain"].config["validation_data"]
    assert (found["path"], found["part"]) == ("other.jsonl", None)


def test_what_is_written_for_validation_goes_before_what_its_data_says(write, load, mistakes) -> None:
    module = resolved(write, load, "pretrain.validation_data.name=mine-to-choose-by")["pretrain"]
    assert module.config["validation_data"] == {**module.config["data"], "name": "mine-to-choose-by", "part": "dev"}
    assert module.origins["validation_data.name"] == "--set pretrain.validation_data.name=mine-to-choose-by"
    assert "pretrain.validation_data.part: found train" in refused(
        write, mistakes, "pretrain.validation_data.part=train"
    )


def test_evaluation_data_is_looked_at_as_training_data_is(write, mistakes) -> None:
    assert "evaluate.data.limit: found 0" in refused(write, mistakes, "evaluate.data.limit=0")
    assert "evaluate.data.dataset: two sources" in refused(write, mistakes, "evaluate.data.dataset=a/b")


def test_validation_that_is_off_reads_nothing(write, load) -> None:
    config = resolved(write, load, "pretrain.validation.enable=false")["pretrain"].config
    assert config["validation_data"]["path"] is None


def test_evaluation_may_read_what_is_for_choosing(write, load) -> None:
    assert resolved(write, load, "evaluate.data.part=dev")["evaluate"].config["data"]["part"] == "dev"


MIXTURE = """
    kind: text
    held_out: {dev: 0.05}
    mixture:
      sources:
        a: {path: a.jsonl}
        b: {path: b.jsonl, held_out: {}}
        c: {path: c.jsonl, held_out: {dev: 9, test: 0.1}, weight: 3}
    """


def test_a_mixture_validates_on_the_sources_that_hold_rows_out(write, load) -> None:
    from titanflow.config.mixture import mixture_members

    more = "\n".join(line for line in MIXTURE.splitlines())
    experiment = (EXPERIMENT % "").replace("      evaluate:\n        data: mine.yaml\n", "      evaluate:\n")
    config = load(write(data__mine=more, experiments__exp=experiment)).modules["pretrain"].config
    parts = {name: one["part"] for name, one in mixture_members(config["data"]).items()}
    assert parts == {"a": "train", "b": None, "c": "train"}
    members = mixture_members(config["validation_data"])
    assert {name: (one["part"], one["held_out"]["dev"]) for name, one in members.items()} == {
        "a": ("dev", 0.05),
        "c": ("dev", 9),
    }
    assert config["validation_data"]["mixture"]["sources"]["c"]["weight"] == 3


def held_out(value: str) -> str:
    return f"path: text.jsonl\nheld_out: {value}\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (held_out("{dev: 0}"), ["held_out.dev: found 0", "mine.yaml:2", "a share between 0 and 1 (0.01), or a number"]),
        (held_out("{dev: -3}"), ["held_out.dev: found -3"]),
        (held_out("{dev: 0.01, test: 0.0}"), ["held_out.test: found 0.0"]),
        (held_out("{dev: 0.01, test: 1.0}"), ["held_out.test: found 1.0"]),
        (held_out("{dev: 0.01, test: 1.5}"), ["held_out.test: found 1.5"]),
        (held_out("{dev: 0.4, test: 0.6}"), ["held_out.dev: found 0.4 and 0.6, which leaves nothing", "below 1"]),
        (held_out("{dev: true, test: 0.1}"), ["held_out.dev: found True"]),
        (held_out("{dev: '0.01', test: 0.1}"), ["held_out.dev: found '0.01' (text)", "take the quotes off: 0.01"]),
        (held_out("{dve: 0.01}"), ["held_out.dve: unknown key", "did you mean `data.held_out.dev`?"]),
        (held_out("0.01"), ["held_out: found 0.01"]),
        (held_out("{test: 0.01}"), ["validation.enable: validation is on, and there is nothing to validate on"]),
        (held_out("{dev: 0.01}"), ["evaluate.data.held_out: data reads the test part, and the source holds none out"]),
        ("path: text.jsonl\nkind: text\n", ["evaluate.data.held_out: evaluation items are rows that are held out"]),
        ("path: text.jsonl\npart: dev\n", ["data.part: found dev, and nothing of the source is held out"]),
        (DATA + "part: dev\n", ["pretrain.data.part: found dev", "expected: train", "never trained on"]),
        (
            DATA + "part: heldout\n",
            ["pretrain, evaluate: data.part: found 'heldout'", "one of train, dev, test or null"],
        ),
        (DATA + "part: train\n", ["evaluate.data.part: found train", "expected: test or dev"]),
        (DATA + "streaming: true\n", ["data.held_out.test: found 200, and a stream is divided row by row"]),
        ("source: stdlib\nheld_out: {dev: 0.1}\n", ["data.held_out: stdlib has parts of its own"]),
        (DATA + "kind: evals\n", ["pretrain.data.kind: found 'evals'", "evaluate.data.held_out: means nothing"]),
        (MIXTURE, ["mine.yaml:5: evaluate.data.mixture: evaluation items are made of", "the data file of one of its"]),
    ],
)
def test_what_can_not_be_is_refused_with_file_and_line(write, mistakes, data: str, expected: list[str]) -> None:
    message = refused(write, mistakes, data=data)
    for part in expected:
        assert part in message


def test_what_is_for_reporting_is_not_validated_on(write, mistakes) -> None:
    message = refused(write, mistakes, "pretrain.validation_data.part=test", more="validation_data: mine.yaml")
    assert "pretrain.validation_data.part: found test" in message
    assert "expected: dev" in message


def test_a_part_of_a_mixture_that_holds_nothing_out_is_refused(write, mistakes) -> None:
    data = "part: dev\nmixture: {sources: {a: {path: a.jsonl}}}\n"
    assert "pretrain.data.part: found dev, and nothing of the source is held out" in refused(write, mistakes, data=data)


def test_shares_that_are_held_out_of_a_stream_are_taken(write, load) -> None:
    experiment = (EXPERIMENT % "").replace("      evaluate:\n        data: mine.yaml\n", "      evaluate:\n")
    path = write(data__mine="path: a.jsonl\nheld_out: {dev: 0.1}\nstreaming: true\n", experiments__exp=experiment)
    assert load(path).modules["pretrain"].config["validation_data"]["streaming"]


def test_what_a_source_takes_from_the_mixture_around_it_is_found_there(write, mistakes) -> None:
    data = "held_out: {dev: 1.5}\nmixture: {sources: {a: {path: a.jsonl}, b: {path: b.jsonl, held_out: {dev: 0}}}}\n"
    message = refused(write, mistakes, data=data)
    assert "configs/data/mine.yaml:1: pretrain.data.mixture.sources.a.held_out.dev: found 1.5" in message
    assert "configs/data/mine.yaml:2: pretrain.data.mixture.sources.b.held_out.dev: found 0" in message


def test_what_nobody_wrote_is_a_default_of_this_project(write, load) -> None:
    origins = load(write()).modules["pretrain"].origins
    nested = ("data.held_out.dev", "data.mixture.strategy", "validation_data.held_out.test")
    assert {origins[key] for key in nested} == {"default"}
