"""A draft that begins with a model."""

from pathlib import Path

import pytest
from drafts import CPU, draft, write_base
from own_files import faq, wiki
from tokenizers import Tokenizer

from titanflow.config.files.chat_template import LLAMA3, TOKENS
from titanflow.draft import machine
from titanflow.planning.plan import make_plan

pytestmark = pytest.mark.slow


def test_a_base_alone_is_fine_tuned(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    _, experiment, _ = draft(chats=faq(tmp_path), base=base)
    assert list(experiment.modules) == ["sft", "evaluate", "publish"]
    assert experiment.modules["sft"].config["base"] == base
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
    assert experiment.modules["sft"].config["tokenizer"]["new_special_tokens"] == ["<|im_start|>", "<|im_end|>"]
    assert experiment.modules["evaluate"].config["models"] == ["sft"]
    make_plan("my")


def test_a_base_that_reads_text_first_gets_a_template_that_needs_no_tokens(tmp_path: Path) -> None:
    base = write_plain_base(tmp_path / "base")
    _, experiment, _ = draft(text=wiki(tmp_path), chats=faq(tmp_path), base=base)
    config = experiment.modules["sft"].config
    assert (config["chat"]["template"], config["tokenizer"]["new_special_tokens"]) == ("zephyr", [])
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
    assert (config["chat"]["template"], config["tokenizer"]["new_special_tokens"]) == ("llama3", [])


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
