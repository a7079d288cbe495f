"""What an experiment from a user's own files says, on machines and bases that the tests choose."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_files import CHATS, TEXTS, faq, messages, sentence, sharegpt, wiki
from qwen2_repository import CONFIG, TINY, write_tokenizer
from tokenizers import Tokenizer

from titanflow.common.errors import ConfigError, DataError
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.files.chat_template import LLAMA3, TOKENS
from titanflow.draft import machine
from titanflow.draft.draft import Asked, Draft
from titanflow.draft.fitting import fitting
from titanflow.draft.recipe import base_rate, learning_rate, pretrain_steps, size_for
from titanflow.draft.sizes import LARGEST, llama, parameters_of, parse_size
from titanflow.draft.tokens import smaller, vocabulary
from titanflow.planning.forecast.device import DeviceSpec
from titanflow.planning.plan import make_plan

GIB = 1 << 30
CPU = DeviceSpec("cpu", "a CPU × 2", 16 * GIB, 2)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "device_of", lambda launcher: CPU)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts so many GPUs into the machine."""

    def have(gib: int, count: int = 1, name: str = "NVIDIA H100") -> None:
        found = machine.Machine(DeviceSpec("cuda", name, gib * GIB), count)
        monkeypatch.setattr(machine.Machine, "here", lambda: found)

    return have


def write_base(folder: Path, **config: Any) -> str:
    """A folder that a plan takes for a model; its weights are empty, since a plan reads none."""
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **TINY, **config}), encoding="utf-8")
    (folder / "model.safetensors").touch()
    return str(folder)


def drafted(text: str) -> Experiment:
    """The experiment that a draft's text makes, as a command loads it."""
    Path("my.yaml").write_text(text, encoding="utf-8")
    return load_experiment("my", starts=False)


def draft(**asked: Any) -> tuple[Draft, Experiment, str]:
    files = {key: [os.path.relpath(asked.pop(key))] for key in ("text", "chats") if key in asked}
    made = Draft.of(Asked("my", **files, **asked))
    text = fitting(made)
    return made, drafted(text), text


@pytest.mark.parametrize(("text", "chats"), [(text, chats) for text in TEXTS for chats in list(CHATS)[:1]])
def test_a_draft_of_any_text_passes_the_plan(tmp_path: Path, text: str, chats: str) -> None:
    draft(text=TEXTS[text](tmp_path), chats=CHATS[chats](tmp_path))
    stages = make_plan("my").stages
    assert [stage.stage for stage in stages] == ["prepare", "pretrain", "sft", "evaluate", "publish"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("chats", CHATS)
def test_a_draft_of_any_conversations_passes_the_plan(tmp_path: Path, chats: str) -> None:
    _, experiment, _ = draft(text=wiki(tmp_path), chats=CHATS[chats](tmp_path))
    assert {stage.state for stage in make_plan("my").stages} == {"RUN"}
    data = experiment.modules["sft"].config["data"]
    # The evaluation's items are the rows that the training doesn't see.
    same = ("path", "kind", "chat_format", "columns", "roles", "held_out")
    assert {key: experiment.modules["evaluate"].config["data"][key] for key in same} == {key: data[key] for key in same}
    assert experiment.modules["evaluate"].config["data"]["part"] == "test"
    assert experiment.modules["sft"].config["validation_data"]["part"] == "dev"


def test_a_draft_is_short_and_says_why(tmp_path: Path) -> None:
    _, _, text = draft(text=wiki(tmp_path), chats=sharegpt(tmp_path))
    lines = text.splitlines()
    assert sum(not line.lstrip().startswith("#") for line in lines) <= 30
    assert sum("#" in line for line in lines) >= 10
    assert max(map(len, lines)) <= 140


def test_without_conversations_the_text_itself_is_evaluated(tmp_path: Path) -> None:
    _, experiment, _ = draft(text=wiki(tmp_path))
    assert list(experiment.modules) == ["pretrain", "evaluate", "publish"]
    evaluate = experiment.modules["evaluate"].config
    assert (evaluate["tasks"], evaluate["models"], evaluate["data"]["kind"]) == (["held_out_text"], ["base"], "text")
    assert experiment.modules["publish"].config["model"] == "pretrain"
    make_plan("my")


def test_a_name_on_the_hub(tmp_path: Path) -> None:
    _, experiment, _ = draft(text=wiki(tmp_path), hub="me/model")
    config = experiment.modules["publish"].config
    said = {key: config[key] for key in ("target", "repo_id", "private", "own_tasks")}
    assert said == {"target": "hub", "repo_id": "me/model", "private": True, "own_tasks": False}


def test_more_text_makes_a_larger_model_as_far_as_the_time_goes() -> None:
    here = machine.Machine(CPU)
    sizes = {tokens: size_for(tokens, here) for tokens in (10**5, 10**6, 10**7, 10**9)}
    assert sizes[10**5] < sizes[10**6] == pytest.approx(sizes[10**7], rel=0.2)
    assert sizes[10**7] == sizes[10**9]
    for tokens, parameters in sizes.items():
        rows, steps = pretrain_steps(tokens, parameters, 128, here, is_base=False)
        trained = rows * steps * 128
        assert 0.8 * 3 * parameters <= trained <= 4 * tokens
        assert 6 * parameters * trained <= machine.PRETRAIN["cpu"] * here.flops


def test_rates_fall_with_the_size_and_a_base_moves_less() -> None:
    sizes = [10**6, 10**7, 10**9, 7 * 10**9]
    rates = [learning_rate(size) for size in sizes]
    assert rates == sorted(rates, reverse=True)
    assert all(base_rate(size) < learning_rate(size) for size in sizes)
    assert (base_rate(7 * 10**9), base_rate(7 * 10**9, lora=True)) == (2e-5, 2e-4)


def test_as_many_parameters_as_asked_for(tmp_path: Path) -> None:
    made, _, text = draft(text=wiki(tmp_path), size="10M")
    assert made.parameters == pytest.approx(10_000_000, rel=0.1)
    assert "as --size 10M asks" in text
    # The smallest llama that a draft makes is larger.
    assert "the nearest to what --size 100k asks for" in draft(text=tmp_path / "wiki.txt", size="100k")[2]


@pytest.mark.parametrize("size", [10**6, 10**7, 10**8, 10**9, 10**10])
def test_a_llama_of_any_size(size: int) -> None:
    assert parameters_of(llama(size, 512)) == pytest.approx(size, rel=0.1)


@pytest.mark.parametrize("size", ["", "0", "ten", "-5M", "1e7", "99k", "2000B", str(LARGEST + 1)])
def test_absurd_sizes(size: str) -> None:
    with pytest.raises(ConfigError, match="--size"):
        parse_size(size)


def test_a_size_that_fits_no_memory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pretrain takes .* GiB, and a CPU × 2 has 16.0 GiB"):
        draft(text=wiki(tmp_path), size="70B")


def test_rows_are_as_long_as_conversations_need(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "red stone " * count}]}
        for count in range(1, 121)
    ]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    made, experiment, _ = draft(text=wiki(tmp_path, 3000), chats=path)
    row = experiment.modules["sft"].config["training"]["seq_len"]
    assert row >= 240
    assert experiment.modules["pretrain"].config["training"]["seq_len"] >= row
    assert made.notes == []


def long_chats(folder: Path, words: int, count: int = 100, tools: bool = False) -> Path:
    """Conversations of so many words, said or in the description of a tool."""
    long = " ".join(sentence(number) for number in range(words // 10))
    tool = {"name": "look", "description": long}
    rows = [
        {
            "conversations": [
                {"from": "human", "value": f"{number}? {'' if tools else long}"},
                {"from": "function_call", "value": json.dumps({"name": "look", "arguments": {"at": number}})},
                {"from": "observation", "value": "a stone"},
                {"from": "gpt", "value": "A stone."},
            ],
            "tools": json.dumps([tool]) if tools else "[]",
        }
        for number in range(count)
    ]
    path = folder / "long.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("tools", [False, True])
def test_a_row_grows_before_most_conversations_are_left_out(tmp_path: Path, tools: bool) -> None:
    path, text = long_chats(tmp_path, 500, tools=tools), wiki(tmp_path, 9000)
    made, experiment, _ = draft(text=text, chats=path)
    assert machine.Machine(CPU).longest_row < made.chats.mean < made.chat_row <= 2048
    assert made.notes == []
    assert experiment.modules["pretrain"].config["training"]["seq_len"] >= made.chat_row


def test_conversations_none_of_which_fits(tmp_path: Path) -> None:
    long_chats(tmp_path, 5000)
    wiki(tmp_path, 9000)
    with pytest.raises(ConfigError, match="--chats: 0 of 100 conversations have no more than 2048 tokens"):
        Draft.of(Asked("my", ["wiki.txt"], ["long.json"]))


def test_where_some_are_left_out_more_are_held_out(tmp_path: Path) -> None:
    short, long = long_chats(tmp_path, 100, 60).rename(tmp_path / "short.json"), long_chats(tmp_path, 5000, 60)
    rows = [row for path in (short, long) for row in json.loads(path.read_text(encoding="utf-8"))]
    long.write_text(json.dumps(rows), encoding="utf-8")
    made, experiment, text = draft(text=wiki(tmp_path, 9000), chats=long)
    assert "60 conversations are longer than" in made.notes[0]
    # One of 12 for each purpose, of those that fit.
    assert experiment.modules["sft"].config["data"]["held_out"]["dev"] == 13
    steps = experiment.modules["sft"].config["training"]["steps"]
    assert f"{8 * steps / (60 - 26):.2g} passes over the conversations" in text


def test_a_gpu_gets_bfloat16_and_a_model_for_its_hour(tmp_path: Path, gpus: Callable[..., None]) -> None:
    gpus(80)
    made, experiment, _ = draft(text=wiki(tmp_path, 6000))
    training = experiment.modules["pretrain"].config["training"]
    assert training["mixed_precision_param"] == "bfloat16"
    assert made.row == 1024


def test_several_gpus_share_the_work(tmp_path: Path, gpus: Callable[..., None]) -> None:
    gpus(80, 8)
    _, experiment, _ = draft(text=wiki(tmp_path, 6000))
    config = experiment.modules["pretrain"].config
    assert config["launcher"]["nproc_per_node"] == 8
    assert config["training"]["global_batch_size"] % 8 == 0


LARGE = {
    **{"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
    **{"num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False, "max_window_layers": 28},
}
"""Qwen2.5 7B."""


@pytest.mark.parametrize(
    ("gib", "count", "lora", "dtype"), [(200, 1, False, "float32"), (80, 1, True, "float32"), (24, 1, True, "bfloat16")]
)
def test_a_large_base_is_trained_as_the_memory_allows(
    tmp_path: Path, gpus: Callable[..., None], gib: int, count: int, lora: bool, dtype: str
) -> None:
    gpus(gib, count)
    base = write_base(tmp_path / "base", **LARGE)
    _, experiment, _ = draft(chats=messages(tmp_path), base=base)
    config = experiment.modules["sft"].config
    assert (bool(config["lora"]["rank"]), config["training"]["dtype"]) == (lora, dtype)
    assert not [line for line in make_plan("my", runs_here=False).config.warnings if "forecast to take" in line]


def test_a_base_that_fits_nowhere(tmp_path: Path, gpus: Callable[..., None]) -> None:
    gpus(8)
    with pytest.raises(ConfigError, match=r"--base: 7.62 B parameters don't fit"):
        draft(chats=messages(tmp_path), base=write_base(tmp_path / "base", **LARGE))


def test_a_base_alone_is_fine_tuned(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    _, experiment, _ = draft(chats=faq(tmp_path), base=base)
    assert list(experiment.modules) == ["sft", "evaluate", "publish"]
    assert experiment.modules["sft"].config["sft"]["base"] == base
    make_plan("my")


def write_plain_base(folder: Path, has_tokens: bool = False) -> str:
    """A base without a chat template."""
    base = Path(write_base(folder))
    (base / "chat_template.jinja").unlink()
    tokenizer = base / "tokenizer.json"
    text = tokenizer.read_text(encoding="utf-8")
    if not has_tokens:
        tokenizer.write_text(text.replace("<|im_start|>", "<|a|>").replace("<|im_end|>", "<|b|>"), encoding="utf-8")
    return str(base)


def test_a_base_without_a_template_gets_the_tokens_of_one(tmp_path: Path) -> None:
    base = write_plain_base(tmp_path / "base")
    _, experiment, _ = draft(chats=faq(tmp_path), base=base)
    assert experiment.modules["sft"].config["sft"]["new_special_tokens"] == ["<|im_start|>", "<|im_end|>"]
    assert experiment.modules["evaluate"].config["models"] == ["sft"]
    make_plan("my")


def test_a_base_that_reads_text_first_gets_a_template_that_needs_no_tokens(tmp_path: Path) -> None:
    base = write_plain_base(tmp_path / "base")
    _, experiment, _ = draft(text=wiki(tmp_path), chats=faq(tmp_path), base=base)
    config = experiment.modules["sft"].config
    assert (config["chat"]["template"], config["sft"]["new_special_tokens"]) == ("zephyr", [])
    assert experiment.modules["evaluate"].config["models"] == ["sft"]
    make_plan("my")


@pytest.mark.parametrize("has_text", [True, False])
def test_a_base_with_llama_3_s_tokens_gets_its_template(tmp_path: Path, has_text: bool) -> None:
    base = write_plain_base(tmp_path / "base")
    tokenizer = Tokenizer.from_file(f"{base}/tokenizer.json")
    tokenizer.add_special_tokens(list(TOKENS[LLAMA3]))
    tokenizer.save(f"{base}/tokenizer.json")
    text = {"text": wiki(tmp_path)} if has_text else {}
    _, experiment, _ = draft(**text, chats=faq(tmp_path), base=base)
    config = experiment.modules["sft"].config
    assert (config["chat"]["template"], config["sft"]["new_special_tokens"]) == ("llama3", [])


def test_a_base_keeps_a_context_that_conversations_fit_into(tmp_path: Path) -> None:
    text, base = wiki(tmp_path, 9000), write_base(tmp_path / "base")
    new, on_base = draft(text=text)[1], draft(text=text, base=base)[1]
    assert f"{base} has one of" in draft(text=text, base=base)[0].notes[-1]
    rows = [one.modules["pretrain"].config["training"]["seq_len"] for one in (new, on_base)]
    assert rows == [128, machine.Machine(CPU).longest_row]


def test_text_and_a_base_that_has_the_tokens_alone(tmp_path: Path) -> None:
    base = write_plain_base(tmp_path / "base", has_tokens=True)
    _, experiment, _ = draft(text=wiki(tmp_path), chats=faq(tmp_path), base=base)
    assert experiment.modules["evaluate"].config["models"] == ["sft"]
    make_plan("my")


def test_text_goes_on_from_a_base_s_weights(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    _, experiment, _ = draft(text=wiki(tmp_path), chats=faq(tmp_path), base=base)
    config = experiment.modules["pretrain"].config
    assert (config["model"]["name"], config["model"]["hf_assets_path"]) == ("qwen2", base)
    assert config["checkpoint"]["initial_load_in_hf"]
    assert experiment.modules["pretrain"].model_args["dim"] == 64
    make_plan("my")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "nothing to train on"),
        ({"chats": ["chats.json"]}, "--base OWNER/NAME"),
        ({"text": ["wiki.txt"], "hub": "nobody"}, "--hub: found 'nobody'"),
        ({"text": ["wiki.txt"], "base": "b", "size": "1M"}, "--size"),
        ({"text": ["wiki.txt"], "columns": {"title": "a"}}, "--column: no part 'title' of a row"),
        ({"text": ["wiki.txt"], "base": "nowhere"}, "--base: nowhere isn't there"),
        ({"text": ["wiki.txt"], "size": "tiny"}, "--size: found 'tiny'"),
        ({"text": ["little.txt"]}, "--text: about"),
        ({"text": ["wiki.txt"], "chats": ["few.json"]}, "--chats: 5 conversations"),
    ],
)
def test_what_is_asked_wrongly(tmp_path: Path, asked: dict[str, Any], expected: str) -> None:
    sharegpt(tmp_path, 5).rename(tmp_path / "few.json")
    sharegpt(tmp_path)
    wiki(tmp_path)
    (tmp_path / "little.txt").write_text("Hardly a text.\nNo.\nNone.\n", encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        Draft.of(Asked("my", **asked))
    assert expected in str(refused.value)


def test_a_name_that_is_no_file_s() -> None:
    with pytest.raises(ConfigError, match=r"NAME: found '\.\./my'"):
        Draft.of(Asked("../my", ["wiki.txt"]))


@pytest.mark.parametrize(
    ("size", "parameters", "expected"),
    [(10**4, 10**6, 512), (8 * 10**6, 14 * 10**5, 2048), (10**9, 10**6, 1024), (10**12, 10**10, 32768)],
)
def test_a_vocabulary_for_the_text_and_the_model(size: int, parameters: int, expected: int) -> None:
    assert smaller(vocabulary(size), parameters) == expected


@pytest.mark.parametrize(
    ("texts", "name", "expected"),
    [
        ([sentence(1) * 500], "one.txt", r"1 document \(a document here is a line\)"),
        ([sentence(1) * 500, sentence(2) * 500], "two.jsonl", r"2 documents \(a document here is a row\)"),
        ([sentence(1)] * 300, "same.txt", r"300 documents, all alike \(a document here is a paragraph\)"),
        ([sentence(1), sentence(2)] * 150, "same.jsonl", "300 documents, 2 of them different"),
    ],
)
def test_text_that_leaves_nothing_to_hold_out(tmp_path: Path, texts: list[str], name: str, expected: str) -> None:
    path = write_texts(tmp_path / name, texts)
    with pytest.raises(DataError, match=expected):
        draft(text=path)


def write_texts(path: Path, texts: list[str]) -> Path:
    """Paragraphs, or lines of JSON."""
    lines = [json.dumps({"text": text}) for text in texts]
    path.write_text("\n".join(lines) if path.suffix == ".jsonl" else "\n\n".join(texts), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("texts", "notes"),
    [
        ([sentence(n) for n in range(3000)], []),
        ([sentence(0) * 50000, *(sentence(n) for n in range(1, 3000))], ["one document has 94 % of the text"]),
        ([sentence(n) * 100 for n in range(4)], ["2 of 4 documents are held out"]),
    ],
)
def test_a_document_that_decides_and_held_out_ones_that_are_many_are_told(
    tmp_path: Path, texts: list[str], notes: list[str]
) -> None:
    found = draft(text=write_texts(tmp_path / "texts.jsonl", texts))[0].notes
    assert [note.split(",")[0] for note in found] == notes
