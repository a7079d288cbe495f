"""What ``titanflow masks`` shows is what training reads."""

import json
from pathlib import Path

import pytest
from tiny_experiment import ROOT, write_tiny_experiment
from typer.testing import CliRunner

from titanflow.cli.main import app
from titanflow.data.tokenizer.tokenizer import load_tokenizer

END = "<|im_end|>"
CHATS = [
    {"messages": [{"role": "user", "content": "What colour is it?"}, {"role": "assistant", "content": "red"}], "id": 1},
    {"messages": [{"role": "user", "content": "The river? " * 40}, {"role": "assistant", "content": "far too long"}]},
    {
        "messages": [
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "blue", "train": False},
            {"role": "user", "content": "Sure?", "score": 3},
            {"role": "assistant", "content": "Yes."},
        ],
        "id": 2,
    },
]
LONGER = ("--set", "pretrain.training.seq_len=96", "--set", "sft.training.seq_len=96")


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    configs = write_tiny_experiment(tmp_path_factory.mktemp("masks"))
    first, second, third = (json.dumps(chat) for chat in CHATS)
    (configs.parent / "chats.jsonl").write_text(f"{first}\n{second}\n\n{third}")
    return configs


def masks(configs: Path, *arguments: str, exit_code: int = 0) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["masks", "tiny", "--configs", str(configs), *LONGER, *arguments])
    assert done.exit_code == exit_code, done.output
    return done.stdout, done.stderr


def test_as_json_each_label_is_the_next_token_or_nothing(configs: Path) -> None:
    shown = json.loads(masks(configs, "--json")[0])
    assert shown["dropped"] == {"too_long": 1}
    chats = configs.parent / "chats.jsonl"
    assert [row["source"] for row in shown["rows"]] == [f"{chats}:1", f"{chats}:4"]
    (tokenizer,) = (configs.parent / "runs" / "data").glob("tokenizer-*")
    decode = load_tokenizer(tokenizer).backend.decode
    for row, said in zip(shown["rows"], ("red", "Yes."), strict=True):
        trained = [label for label in row["labels"] if label != -100]
        assert decode(trained, skip_special_tokens=False) == said + END
        following = [*row["input_ids"][1:], -100]
        assert all(label in (-100, token) for label, token in zip(row["labels"], following, strict=True))
        assert row["labels"][-1] == -100
        assert len(row["labels"]) == len(row["input_ids"])


def test_for_people_what_is_trained_stands_between_marks(configs: Path) -> None:
    out, _ = masks(configs, "--rows", "1")
    assert f"⟦red{END}⟧" in out
    assert "Sure?" not in out
    assert "2 conversations" in out
    assert "the mask of 2 of 2 conversations is proved" in out
    assert "1 too_long" in out
    assert "chats.jsonl:2" in out
    assert "read by nothing  2 × id" in out
    assert "1 × messages[].score" in out


def test_as_many_rows_as_asked_for(configs: Path) -> None:
    assert len(json.loads(masks(configs, "--json", "--rows", "1")[0])["rows"]) == 1
    nothing = {"rows": [], "dropped": {"too_long": 1}, "unread": {"id": 2, "messages[].score": 1}, "notes": {}}
    assert json.loads(masks(configs, "--json", "--rows", "0")[0]) == nothing


def test_each_source_of_a_mixture_shows_rows(configs: Path, tmp_path: Path) -> None:
    others = tmp_path / "others.jsonl"
    others.write_text(f"{json.dumps(CHATS[0])}\n" * 2)
    chats = configs.parent / "chats.jsonl"
    sources = f"{{chats: {{path: {chats}}}, others: {{path: {others}}}}}"
    mixture = ("--set", "sft.data.path=null", "--set", f"sft.data.mixture.sources={sources}")
    shown = json.loads(masks(configs, "--json", "--rows", "1", *mixture)[0])
    assert [row["source"] for row in shown["rows"]] == [f"{chats}:1", f"{others}:1"]


def test_packing_shows_the_same_rows_and_how_full_they_are(configs: Path) -> None:
    packed = ("--set", "sft.data.packing=best_fit")
    assert json.loads(masks(configs, "--json", *packed)[0]) == json.loads(masks(configs, "--json")[0])
    assert "best_fit: 1 rows of 96" in masks(configs, *packed)[0]


def test_a_row_that_cannot_be_used_is_named_once_with_its_line(
    configs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(CHATS[0]) + '\n{"messages": [{"role": "user", "content": null}]}\n')
    _, errors = masks(configs, "--set", f"sft.data.path={bad}", exit_code=2)
    told = capfd.readouterr().err + errors
    assert told.count(f"{bad}:2: messages[0].content: the message has no content") == 1
    assert errors == "error: the conversations could not be prepared; the lines above say why\n"


def test_of_a_pair_each_side_is_a_row_that_says_which_it_is(configs: Path, tmp_path: Path) -> None:
    prompt = {"role": "user", "content": "What colour?"}
    sides = {"chosen": "red", "rejected": "mud"}
    pair = {name: [prompt, {"role": "assistant", "content": said}] for name, said in sides.items()}
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps(pair) + "\n", encoding="utf-8")
    prefer = {"config": str(ROOT / "configs" / "modules" / "prefer.yaml"), "base": "sft"}
    prefer |= {"data": {"kind": "pairs", "path": str(pairs)}}
    prefer |= {"overrides": {"training": {"seq_len": 96, "mixed_precision_param": "float32"}}}
    own = {"extends": ["tiny.yaml"], "modules": {"prefer": prefer}}
    (configs / "experiments" / "pairs.yaml").write_text(json.dumps(own), encoding="utf-8")
    command = ["masks", "pairs", "--configs", str(configs), *LONGER, "--module", "prefer"]
    shown = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["rows"]
    assert [(row["source"], row["side"]) for row in shown] == [(f"{pairs}:1", "chosen"), (f"{pairs}:1", "rejected")]
    said = CliRunner().invoke(app, command).stdout
    for side, answer in sides.items():
        assert f"{pairs}:1, {side}   " in said
        assert said.partition(f", {side} ")[2].partition("⟦")[2].startswith(f"{answer}{END}⟧")


def test_a_module_without_conversations_has_no_masks(configs: Path) -> None:
    assert "pretrain trains on no conversations" in masks(configs, "--module", "pretrain", exit_code=2)[1]
    rows = ["--set", "sft.data.held_out.test=0.5", "--set", "evaluate.data.kind=chat"]
    rows += ["--set", f"evaluate.data.path={configs.parent}/chats.jsonl", "--set", "evaluate.data.held_out.test=0.5"]
    assert "evaluate trains on no conversations" in masks(configs, *rows, "--module", "evaluate", exit_code=2)[1]
    unknown = masks(configs, "--module", "sftt", exit_code=2)[1]
    assert "no module 'sftt'" in unknown
    assert "did you mean sft?" in unknown
