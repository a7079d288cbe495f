"""Generation from an export stops where trained turns end, whatever tokens a template ends them with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import model_templates as templates
import numpy as np
import pytest
import torch
from chat_samples import CHATML, add_special_tokens, call, source_of, turns
from tiny_exports import POSITIONS, model_at, save_checkpoint, sensitised, tiny_args
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor

from titan.export.export import export_model
from titanflow.config.files.template_args import with_defaults
from titanflow.config.keys.training import Data
from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.tokenise import ChatPlan, write_chats
from titanflow.data.dataset_info import read_info
from titanflow.data.parts.work import Work
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer, train_tokenizer

pytestmark = pytest.mark.slow

DATE = {"strftime_now": "26 Jul 2024"}
TWO = turns("Q?", "An answer.", "R?", "Another.")
RESULT = {"role": "tool", "content": "sun"}
CALLED = [*turns("Weather?"), call("weather", city="Ulm"), RESULT, {"role": "assistant", "content": "Sun."}]
THOUGHT = [*turns("Q?"), {"role": "assistant", "content": "An answer.", "reasoning_content": "Hm."}]
EOS, END = "<|endoftext|>", "<|im_end|>"


class Says(LogitsProcessor):
    """Has a model say certain tokens, and then one more and more."""

    def __init__(self, prompt: int, tokens: list[int], more: int) -> None:
        self.prompt, self.tokens, self.more = prompt, tokens, more

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        said = input_ids.shape[1] - self.prompt
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.tokens[said] if said < len(self.tokens) else self.more] = 0
        return forced


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedTokenizer:
    folder = tmp_path_factory.mktemp("stops")
    train_tokenizer(["An answer. Another. Weather in Ulm? Sun.\n" * 8], 300, folder / "trained")
    return add_special_tokens(folder / "trained", folder / "tokenizer", templates.TOKENS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    args = tiny_args("llama3", n_layers=1, dim=32)
    return save_checkpoint(sensitised("llama3", args), tmp_path_factory.mktemp("model") / "step-1"), args


@pytest.mark.parametrize(
    ("name", "args", "turns_trained", "chats", "stops"),
    [
        ("chatml", {}, "all", [TWO, CALLED], {END}),
        ("LLAMA31", {}, "all", [TWO, CALLED], {"<|eot|>"}),
        ("QWEN25", {}, "all", [TWO, CALLED], {END}),
        ("QWEN3", {}, "each", [TWO, THOUGHT], {END}),
        ("QWEN3_THINKING", {}, "each", [THOUGHT], {END}),
        ("GEMMA2", {}, "all", [TWO], {END}),
        ("MISTRAL", {}, "all", [TWO], {EOS}),
        ("MISTRAL_SMALL", DATE, "all", [TWO], {EOS}),
        ("PHI3", {}, "all", [turns("Q?", "An answer.")], {"<|end|>"}),
        ("PHI3", {}, "all", [TWO], {"<|end|>"}),
        ("PHI4_MINI", {}, "all", [TWO, CALLED[:2]], {"<|end|>"}),
        ("DEEPSEEK_V3", {}, "all", [TWO, CALLED[:2]], {EOS}),
        ("DEEPSEEK_R1", {}, "each", [THOUGHT], {EOS}),
        ("DEEPSEEK_V31", {"thinking": True}, "each", [THOUGHT], {EOS}),
        ("SMOLLM3", DATE, "all", [TWO], {END}),
        ("GPT_OSS", DATE, "each", [TWO, THOUGHT, CALLED], {"<|return|>", "<|call|>"}),
        ("COMMAND_R", {}, "all", [TWO], {"<|eot|>"}),
        ("LFM2", {}, "all", [TWO, CALLED], {END}),
    ],
)
def test_it_stops_at_the_end_of_every_trained_turn(
    loaded: LoadedTokenizer,
    checkpoint: tuple[Path, Any],
    tmp_path: Path,
    name: str,
    args: dict[str, Any],
    turns_trained: Any,
    chats: list[list[dict[str, Any]]],
    stops: set[str],
) -> None:
    template = CHATML if name == "chatml" else with_defaults(getattr(templates, name), args)
    arguments = "text" if name.startswith("DEEPSEEK") else "mapping"
    plan = ChatPlan(template, name, POSITIONS, turns_trained, tool_arguments=arguments)
    rows = source_of([json.dumps({"messages": chat}) for chat in chats])
    write_chats(rows, Data(name="c", kind="chat"), loaded.folder, plan, "f", tmp_path, Work(1, tmp_path))
    step, model_args = checkpoint
    ends = tuple(read_info(tmp_path).ends_of_turn)
    trained = model_at(step, "llama3", model_args, loaded.folder, chat_template=template, end_of_turn=ends)
    report = export_model(trained, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(report.folder)
    tokenizer = AutoTokenizer.from_pretrained(report.folder)
    assert set(ends) <= set(model.generation_config.eos_token_id)
    encoder = ChatEncoder(loaded, template, name, turns_trained, arguments)
    more, found = loaded.encode("x")[0], set()
    for chat in chats:
        for turn in [number for number, message in enumerate(chat) if message["role"] == "assistant"]:
            asked, said = _turn(encoder, chat[: turn + 1])
            out = model.generate(
                torch.tensor([asked]), max_new_tokens=len(said) + 4, logits_processor=[Says(len(asked), said, more)]
            )[0, len(asked) :].tolist()
            # What may follow the end of a turn, as Phi's end of text, says nothing.
            assert out == said[: len(out)]
            assert not tokenizer.decode(said[len(out) :], skip_special_tokens=True).strip()
            assert out[-1] in ends
            assert not set(out[:-1]) & set(model.generation_config.eos_token_id)
            found.add(tokenizer.decode(out[-1:]))
    assert found == stops


def _turn(encoder: ChatEncoder, messages: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """What the last message is asked with, and what is trained of it."""
    encoded = encoder.encode(Conversation(messages))
    trained = np.flatnonzero(encoded.trained)
    if len(encoded.turns) > 1:
        trained = trained[trained >= len(encoder.prompt(Conversation(messages[:-1])))]
    return encoded.ids[: trained[0]].tolist(), encoded.ids[trained].tolist()
