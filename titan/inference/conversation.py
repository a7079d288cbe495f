"""One model's side of a conversation: the turns so far, and its answer as it is generated."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import TextStreamer

from titan.weights.hf_folder import load_folder, load_tokenizer
from titanflow.architectures.hf_snapshot import names_repository
from titanflow.architectures.huggingface import describe_repository, download_model, is_hugging_face
from titanflow.common.errors import ConfigError, DataError, Problem
from titanflow.data.chat.keys import spelled
from titanflow.data.chat.proof.answer_forms import AnswerForms
from titanflow.data.chat.render import ChatRenderer
from titanflow.data.tokenizer.special_tokens import SpecialTokens
from titanflow.files.published_folder import model_hint

BELOW = ("", "export", "model")
"""A model lies in its own folder, or within that of a training or a publish stage."""
# A terminal obeys them. Tab and newline are harmless; the last two ranges reverse text.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def model_folder(source: str) -> Path:
    """The folder that transformers loads, of a path, a stage's folder, or ``owner/name[@revision]`` on the Hub."""
    for below in BELOW:
        if is_hugging_face(Path(source) / below):
            return Path(source) / below
    repo_id, _, revision = source.partition("@")
    hint = model_hint(source)
    if hint or Path(source).exists() or not names_repository(repo_id):
        expected = "a folder that transformers loads, a finished stage's, or owner/name on the Hub"
        raise ConfigError(Problem(f"{source!r} is no model", expected=expected, hint=hint))
    return download_model(repo_id, describe_repository(repo_id, revision or None).name)


def printable(text: str) -> str:
    """A model's text without control characters that a terminal would obey."""
    return CONTROLS.sub("", text)


class Conversation:
    """A model, its tokenizer and the turns so far; a model without a chat template continues each text on its own."""

    def __init__(self, name: str, folder: Path, system: str | None = None) -> None:
        self.name = name
        self.tokenizer = load_tokenizer(folder)
        if system is not None and not self.has_template:
            raise ConfigError(Problem(f"{name} has no chat template", "--system", hint="it only goes on from a text"))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, _ = load_folder(folder, device=device)
        self.context: int = getattr(self.model.config, "max_position_embeddings", None) or 1 << 30
        self.system = [] if system is None else [{"role": "system", "content": system}]
        self.turns: list[dict[str, str]] = []
        self.forms = answer_forms(self.tokenizer) if self.has_template else None
        self.forgot = 0
        """The number of oldest turns that no longer fitted for the last answer."""

    @property
    def has_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    def reset(self) -> None:
        self.turns = []

    def answer(self, text: str, max_new_tokens: int, temperature: float, say: Callable[[str], None]) -> str:
        """Generates an answer, and hands each piece to ``say`` as soon as it is final and safe to print.

        An interrupted answer stays in the conversation. ``temperature`` 0 takes the likeliest token each time.
        """
        tokens = torch.tensor([self._prompt(text)], device=self.model.device)
        streamer = Streamer(self.tokenizer, say, self.forms)
        try:
            self.model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=min(max_new_tokens, self.context - tokens.shape[1]),
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0,
                streamer=streamer,
                **({"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}),
            )
        finally:
            streamer.flush()
            if self.forms:
                written = self.tokenizer.decode(streamer.tokens, skip_special_tokens=False)
                self.turns.append(self.forms.message(written) or {"role": "assistant", "content": streamer.said})
        return printable(streamer.said)

    def _prompt(self, text: str) -> list[int]:
        """The token ids to answer; the oldest turns are left out if the context is full."""
        if not self.has_template:
            tokens = list(self.tokenizer(text).input_ids)
        else:
            kept = [*self.turns, {"role": "user", "content": text}]
            while len(tokens := self._rendered(kept)) >= self.context and len(kept) > 1:
                kept = kept[2:]
            self.forgot = len(self.turns) + 1 - len(kept)
            self.turns = kept if len(tokens) < self.context else self.turns
        if not 0 < len(tokens) < self.context:
            expected = f"1 to {self.context - 1}, so that there is room for an answer"
            raise DataError(Problem(f"{self.name}: a text of {len(tokens)} tokens", expected=expected))
        return tokens

    def _rendered(self, turns: list[dict[str, str]]) -> list[int]:
        try:
            messages = spelled([*self.system, *turns], self.tokenizer.chat_template)
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise ConfigError(Problem(f"{self.name}'s chat template refuses this: {error}")) from None
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


def answer_forms(tokenizer: Any) -> AnswerForms:
    texts = {token.content: token for token in tokenizer.added_tokens_decoder.values() if token.special}
    variables = {name: str(text) for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
    return AnswerForms(ChatRenderer(tokenizer.chat_template, "its own", SpecialTokens(texts).pattern, variables))


class Streamer(TextStreamer):
    """Hands on an answer word by word; if a template writes it in parts, the parts stay separate."""

    def __init__(self, tokenizer: Any, say: Callable[[str], None], forms: AnswerForms | None) -> None:
        self.forms = forms if forms and forms.in_parts else None
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=self.forms is None)
        self.say = say
        self.tokens: list[int] = []
        """The generated tokens, control tokens included."""
        self.written = ""
        """Their text, with control tokens if they separate an answer's parts."""
        self.said = ""
        """The text handed on, before :func:`printable`."""

    def put(self, value: torch.Tensor) -> None:
        """transformers calls this with the prompt first, then with each token."""
        if not self.next_tokens_are_prompt:
            self.tokens += value.flatten().tolist()
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """transformers calls this with each piece of text."""
        self.written += text
        shown = self.forms.shown(self.written, stream_end) if self.forms else self.written
        piece, self.said = shown[len(self.said) :], shown
        if printable(piece):
            self.say(printable(piece))

    def flush(self) -> None:
        """Says the last word of an interrupted answer, which is held back as it may still change."""
        if self.token_cache:
            self.end()
