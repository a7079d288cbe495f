import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_storage import Blob
from local_hub import LocalHub
from tiny_exports import POSITIONS, TEMPLATE, write_byte_tokenizer
from tiny_hub import REPO, talk_to, upload
from transformers import AutoModelForCausalLM, AutoTokenizer
from wrong_exports import export_tiny

from titan.inference.conversation import Conversation, model_folder, printable
from titanflow.common.errors import ConfigError, DataError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a model of noise."""
    folder = tmp_path_factory.mktemp("exported")
    return export_tiny(folder, "llama3", {}, write_byte_tokenizer(folder / "tokenizer")).folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Path:
    """The same model without a chat template."""
    folder = shutil.copytree(exported, tmp_path_factory.mktemp("plain") / "plain")
    (folder / "chat_template.jinja").unlink()
    return folder


@pytest.fixture
def talking(exported: Path) -> Conversation:
    return Conversation("it", exported)


def answer(conversation: Conversation, text: str, count: int = 8, temperature: float = 0.0) -> tuple[str, list[str]]:
    pieces: list[str] = []
    return conversation.answer(text, count, temperature, pieces.append), pieces


def by_transformers(folder: Path, prompt: str, count: int) -> str:
    """What transformers alone generates."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    generated = model.generate(ids, do_sample=False, max_new_tokens=count)
    return tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)


def chatml(*turns: str) -> str:
    roles = ("user", "assistant")
    said = "".join(f"<|im_start|>{roles[place % 2]}\n{turn}<|im_end|>\n" for place, turn in enumerate(turns))
    return f"{said}<|im_start|>assistant\n"


def test_an_answer_is_what_transformers_generates_behind_the_template(talking: Conversation, exported: Path) -> None:
    expected = by_transformers(exported, chatml("Is it a class?"), 8)
    found, pieces = answer(talking, "Is it a class?")
    assert found == printable(expected) == "".join(pieces)
    assert talking.turns[-1]["content"] == expected, "what is not printed was said all the same"

    second = by_transformers(exported, chatml("Is it a class?", expected, "And that?"), 8)
    assert answer(talking, "And that?")[0] == printable(second)
    talking.reset()
    assert answer(talking, "Is it a class?")[0] == found


def test_a_system_prompt_goes_before(exported: Path) -> None:
    talking = Conversation("it", exported, "Be brief.")
    prompt = f"<|im_start|>system\nBe brief.<|im_end|>\n{chatml('Why?')}"
    assert answer(talking, "Why?")[0] == printable(by_transformers(exported, prompt, 8))


def test_a_model_without_a_template_goes_on_from_each_text(plain: Path) -> None:
    talking = Conversation("it", plain)
    for _ in range(2):
        assert answer(talking, "class Path")[0] == printable(by_transformers(plain, "class Path", 8))
    with pytest.raises(ConfigError, match="no chat template"):
        Conversation("it", plain, "Be brief.")


def test_the_oldest_turns_go_where_the_context_is_full(talking: Conversation) -> None:
    for place in range(5):
        answer(talking, f"{place}" * 60, 4)
    first = talking.turns[0]["content"][0]
    assert first != "0"
    assert talking.forgot == 2
    assert talking.turns[0]["role"] == "user"


def test_a_text_that_leaves_no_room_is_refused_and_changes_nothing(talking: Conversation) -> None:
    answer(talking, "short", 2)
    before = list(talking.turns)
    with pytest.raises(DataError, match=f"expected: 1 to {POSITIONS - 1}"):
        answer(talking, "long" * POSITIONS)
    assert talking.turns == before


def test_an_answer_ends_where_the_context_does(talking: Conversation, exported: Path) -> None:
    room = POSITIONS - len(talking.tokenizer(chatml("x" * 200)).input_ids)
    assert 20 < room < 40
    expected = by_transformers(exported, chatml("x" * 200), room)
    assert answer(talking, "x" * 200, 10_000)[0] == printable(expected)


def test_what_was_said_before_an_interruption_stays_said(
    talking: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(tokens: torch.Tensor, streamer: object, **options: object) -> None:
        streamer.put(tokens)
        for token in talking.tokenizer("half a wo(").input_ids:
            streamer.put(torch.tensor([token]))
        raise KeyboardInterrupt

    monkeypatch.setattr(talking.model, "generate", generate)
    pieces: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        talking.answer("Why?", 8, 0.0, pieces.append)
    # Where a piece ends differs between transformers' releases; each holds back a sign that may become another.
    assert len(pieces) > 1
    assert "".join(pieces) == "half a wo("
    assert talking.turns[-1] == {"role": "assistant", "content": "half a wo("}


PARTS = (
    "{% for m in messages %}{% if m.role == 'assistant' and m.thinking and loop.last %}"
    "<|im_start|>thoughts\n{{ m.thinking }}<|im_end|>{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
"""As gpt-oss's: control tokens part the thoughts from the answer, and the history has none of them."""


def test_an_answer_in_parts_stands_in_the_history_as_the_template_writes_it(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(exported, tmp_path / "parts")
    (folder / "chat_template.jinja").write_text(PARTS)
    talking, asked = Conversation("it", folder), []

    def generate(tokens: torch.Tensor, streamer: Any, **options: object) -> None:
        asked.append(talking.tokenizer.decode(tokens[0]))
        streamer.put(tokens)
        for token in talking.tokenizer("thoughts\nHm.<|im_end|><|im_start|>assistant\nYes.<|im_end|>").input_ids:
            streamer.put(torch.tensor([token]))
        streamer.end()

    monkeypatch.setattr(talking.model, "generate", generate)
    found, pieces = answer(talking, "Is it?")
    assert found == "".join(pieces) == "Hm.\n\nYes.", "its parts are shown apart, without their names"
    assert talking.turns[-1] == {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}
    answer(talking, "Sure?")
    turns = "<|im_start|>user\nIs it?<|im_end|><|im_start|>assistant\nYes.<|im_end|><|im_start|>user\nSure?<|im_end|>"
    assert asked[1] == f"{turns}<|im_start|>"


def test_a_temperature_samples(talking: Conversation) -> None:
    torch.manual_seed(0)
    answers = set()
    for _ in range(4):
        talking.reset()
        answers.add(answer(talking, "Why?", temperature=5.0)[0])
    assert len(answers) > 1


def test_a_template_that_refuses_says_so(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "strict")
    refusing = "{{ raise_exception('no system role here') }}"
    (folder / "chat_template.jinja").write_text(
        f"{{% if messages[0].role == 'system' %}}{refusing}{{% endif %}}{TEMPLATE}"
    )
    with pytest.raises(ConfigError, match="no system role here"):
        answer(Conversation("it", folder, "Be brief."), "Why?")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m\x07", "[31mred[0m"),
        ("a\tb\nc\r\x00d", "a\tb\ncd"),
        ("\x9b2J\u202eabc\u2066", "2Jabc"),
        ("[bold]ä 中 🙂", "[bold]ä 中 🙂"),
    ],
)
def test_what_a_terminal_would_obey_is_left_out(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_a_stages_folder_stands_for_its_model(exported: Path, tmp_path: Path) -> None:
    for name in ("export", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        assert model_folder(str(tmp_path)) == tmp_path / name
        shutil.rmtree(tmp_path / name)
    assert model_folder(str(exported)) == exported
    for source in (str(tmp_path), "no-such-folder"):
        with pytest.raises(ConfigError, match="is no model"):
            model_folder(source)


def test_a_repository_is_downloaded_at_its_revision_and_without_pickles(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalHub() as hub:
        talk_to(hub, monkeypatch, tmp_path)
        repo = upload(hub, exported)
        files, pickled = repo.at("v1").files, {"pytorch_model.bin": Blob(b"\x80")}
        repo.commit("main", "more", {**files, **pickled, "notes.md": Blob(b"#")})
        assert {path.name for path in model_folder(REPO).iterdir()} == {path.name for path in exported.iterdir()}
        assert model_folder(f"{REPO}@v1").name == repo.tags["v1"]
        repo.commit("main", "pickled", {"config.json": files["config.json"], **pickled})
        with pytest.raises(ConfigError, match="loading a pickle runs the code in it"):
            model_folder(REPO)
        with pytest.raises(ConfigError, match="can't be had"):
            model_folder("local/other")
