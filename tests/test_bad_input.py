"""Bad input through the command line: one clear message, nothing written, no process left."""

import json
from pathlib import Path

import psutil
import pytest
from command_line import Cli

CHAT = {"messages": [{"role": "user", "content": "What colour is it?"}, {"role": "assistant", "content": "red"}]}


def refused(tiny: Cli, *arguments: str) -> str:
    """The message of a run that is refused."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    done = tiny("run", *arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    assert not (tiny.configs.parent / "runs").exists(), sorted((tiny.configs.parent / "runs").rglob("*"))
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before
    return done.stderr


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (
            "pretrain.training.local_batch_sizes=3",
            ["unknown key", "did you mean `pretrain.training.local_batch_size`?"],
        ),
        ("pretrain.training.steps=many", ["pretrain.training.steps", "found 'many' (text)", "a whole number"]),
        ("pretrain.params.model_overrides.n_layers=4", ["Invalid override keys detected: ['n_layers']"]),
        ("pretrain.model.flavor=9B", ["flavor '9B' not found in model_args for 'llama3'"]),
        ("pretrain.data.path=/nowhere/text.txt", ["/nowhere/text.txt"]),
        ("pretrain.training.seq_len=999999", ["found 999999", "pretrain.model.max_seq_len", "is 131072"]),
        ("sft.training.seq_len=96", ["found 96", "pretrain was trained with 48"]),
        ("sft.model.n_layers=7", ["found 7, and pretrain has 2"]),
        ("nosuch.key=1", ["nosuch.key: unknown key"]),
        ("pretrain.nosuch.key=1", ["pretrain.nosuch: unknown key"]),
        ("evaluate.include_path=nowhere", ["evaluate.include_path", "no such folder: nowhere"]),
        ("publish.target=hub", ["publish.repo_id", "owner/name"]),
    ],
)
def test_a_bad_setting(tiny: Cli, setting: str, expected: list[str]) -> None:
    message = refused(tiny, "--set", setting)
    for part in expected:
        assert part in message


def test_a_run_name_that_is_no_folder(tiny: Cli) -> None:
    assert "--run" in refused(tiny, "--run", "../elsewhere")


def test_an_experiment_that_is_not_there(tiny: Cli) -> None:
    (tiny.configs / "experiments/tiny.yaml").rename(tiny.configs / "experiments/tinys.yaml")
    assert "did you mean tinys?" in refused(tiny)


def test_an_empty_text_file(tiny: Cli) -> None:
    (tiny.configs.parent / "text.txt").write_text("")
    assert "text.txt" in refused(tiny)


def test_bad_conversations_are_refused_with_their_lines(tiny: Cli) -> None:
    question = CHAT["messages"][0]
    unknown, empty = {"role": "usr", "content": "x"}, {"role": "assistant", "content": None}
    rows = [CHAT, *({"messages": messages} for messages in ([question, unknown], [question, empty], [question]))]
    (tiny.configs.parent / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = refused(tiny)
    for place in ("chats.jsonl:2", "chats.jsonl:3", "chats.jsonl:4"):
        assert place in text
    for part in ("'usr'", "messages[1].content", "no content", "assistant"):
        assert part in text


def test_a_tokenizer_that_is_not_the_bases(tiny: Cli, tmp_path: Path) -> None:
    from titanflow.data.tokenizer.tokenizer import train_tokenizer

    train_tokenizer(["some other text altogether\n"] * 50, 300, tmp_path / "other")
    text = refused(tiny, "--set", f"sft.tokenizer.path={tmp_path / 'other'}")
    assert "sft.tokenizer.path" in text
    assert "another tokenizer" in text
