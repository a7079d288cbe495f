"""A mixture in a ``data`` section, from the files to the config of each source."""

from pathlib import Path

import pytest

from titanflow.config.mixture import mixture_members, mixture_spec, packs_rows, row_kinds

ROOT = Path(__file__).parents[3]

DATA = """
    kind: chat
    overlong: truncate_left
    mixture:
      strategy: interleave
      weights: tokens
      sources:
        first: {data: first.yaml, weight: 3}
        second: {path: second.jsonl, overlong: drop, epochs: 2}
    """
FIRST = "path: first.jsonl\nchat_format: sharegpt\nweight: 7\n"
SFT = "extends: [base.yaml]\ntraining: {seq_len: 64}\n"
EXPERIMENT = """
    exp_name: mixed
    modules:
      pretrain: {config: pretrain.yaml, model: tiny.yaml}
      sft: {config: sft.yaml, data: mixed.yaml}
    """


def load_data(write, load, *settings: str, **files: str) -> dict:
    path = write(**{"data__mixed": DATA, "data__first": FIRST, "experiments__exp": EXPERIMENT, **files})
    return load(path, *settings).modules["sft"].config["data"]


def test_a_source_has_what_it_sets_and_the_rest_of_the_section_around_it(write, load) -> None:
    members = mixture_members(load_data(write, load))
    assert list(members) == ["first", "second"]
    first, second = members.values()
    assert (first["path"], first["chat_format"], first["overlong"]) == ("first.jsonl", "sharegpt", "truncate_left")
    assert (second["path"], second["chat_format"], second["overlong"]) == ("second.jsonl", "messages", "drop")
    assert first["kind"] == second["kind"] == "chat"
    assert "weight" not in first


def test_what_the_mixture_says_goes_before_the_data_file(write, load) -> None:
    spec = mixture_spec(load_data(write, load))
    assert spec["sources"] == {"first": {"weight": 3, "epochs": 1.0}, "second": {"weight": 1.0, "epochs": 2}}
    assert (spec["strategy"], spec["weights"], spec["stop"]) == ("interleave", "tokens", "first_exhausted")


def test_a_source_is_set_like_any_other_key(write, load) -> None:
    data = load_data(write, load, "sft.data.mixture.sources.second.weight=0.5")
    assert mixture_spec(data)["sources"]["second"] == {"weight": 0.5, "epochs": 2}


def test_each_data_file_that_isnt_there_is_named(write, mistakes) -> None:
    sources = "kind: chat\nmixture: {sources: {a: {data: nowhere}, b: {data: elsewhere}}}\n"
    message = mistakes(write(data__mixed=sources, experiments__exp=EXPERIMENT))
    for name, file in (("a", "nowhere"), ("b", "elsewhere")):
        assert f"sft.data.mixture.sources.{name}.data: no file '{file}'\n" in message


def test_no_mixture_has_no_members(write, load) -> None:
    assert mixture_members(load(write()).modules["sft"].config["data"]) == {}


def test_an_unknown_key_of_a_source_is_named_with_its_line(write, mistakes) -> None:
    data = DATA.replace("epochs: 2", "epoch: 2")
    message = mistakes(write(data__mixed=data, data__first=FIRST, experiments__exp=EXPERIMENT))
    assert "configs/data/mixed.yaml:8: sft.data.mixture.sources.second.epoch: unknown key" in message
    assert "did you mean `sft.data.mixture.sources.second.epochs`?" in message


@pytest.mark.parametrize("name", ["chat_files", "sharegpt_files", "instructions", "chat_mixture"])
def test_every_data_file_for_chats_that_ships_resolves(load, name: str) -> None:
    experiment = ROOT / "configs" / "experiments" / "stdlib.yaml"
    data = load(experiment, f"sft.data={name}.yaml").modules["sft"].config["data"]
    members = mixture_members(data) or {name: data}
    assert all(member["kind"] == "chat" and member["path"] for member in members.values())
    assert packs_rows(data) == (name == "chat_mixture")


def test_the_kinds_of_rows_are_the_section_s_or_those_of_its_sources() -> None:
    assert row_kinds({"kind": "chat"}) == {"chat"}
    assert row_kinds({"kind": "text", "mixture": {"sources": {"a": {"kind": "pairs"}}}}) == {"pairs"}
    assert row_kinds({"kind": "chat", "mixture": {"sources": {"a": {"kind": "text"}, "b": {}}}}) == {"chat", "text"}
    assert row_kinds({}) == {"text"}
