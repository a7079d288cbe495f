"""One model's side of a conversation: what was said, and its answer as it comes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import TextStreamer

from titan.weights.hf_load import load_folder, load_tokenizer
from titanflow.architectures.hf_snapshot import names_repository
from titanflow.architectures.huggingface import describe_repository, download_model, is_hugging_face
from titanflow.common.errors import ConfigError, DataError, Problem
from titanflow.data.chat.keys import spelled
from titanflow.data.chat.proof.answer_forms import AnswerForms
from titanflow.data.chat.render import ChatRenderer
from titanflow.data.tokenizer.special_tokens import SpecialTokens

BELOW = ("", "export", "model")
"""Where a folder's model lies: in itself, or in that of a training or of a publish stage."""
# All but tab and newline: a terminal obeys them. The last two ranges turn text around.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def model_folder(source: str) -> Path:
    """The folder that transformers loads.

    Args:
        source: such a folder, a stage's, or ``owner/name`` on the Hub, with ``@revision`` behind it or without.

    Raises:
        ConfigError: it is none of these, or the Hub has no such model.
    """
    for below in BELOW:
        if is_hugging_face(Path(source) / below):
            return Path(source) / below
    repo_id, _, revision = source.partition("@")
    if Path(source).exists() or not names_repository(repo_id):
        expected = "a folder that transformers loads, a finished stage's, or owner/name on the Hub"
        raise ConfigError(Problem(f"{source!r} is no model", expected=expected))
    return download_model(repo_id, describe_repository(repo_id, revision or None).name)


def printable(text: str) -> str:
    """A model's text without what a terminal would obey."""
    return CONTROLS.sub("", text)


class Conversation:
    """A model, its tokenizer and what was said so far.

    With a chat template the answers follow one another; a model without one goes on from each text by itself.
    """

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
        """Turns that the last answer could no longer take into account."""

    @property
    def has_template(self) -> bool:
        """Whether the model answers; otherwise it goes on."""
        return bool(self.tokenizer.chat_template)

    def reset(self) -> None:
        """Forgets what was said."""
        self.turns = []

    def answer(self, text: str, max_new_tokens: int, temperature: float, say: Callable[[str], None]) -> str:
        """Generates an answer and hands each piece of it to ``say`` as soon as it stands.

        Where it is interrupted, what was said until then stays said.

        Args:
            text: the user's turn, or what to go on from.
            max_new_tokens: the most tokens of the answer.
            temperature: of sampling; 0 takes the likeliest token each time.
            say: gets text that is safe to print, an answer's parts apart from one another.

        Raises:
            ConfigError: the template refuses the conversation.
            DataError: the text leaves no room in the model's context.
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
                as_one = {"role": "assistant", "content": streamer.said}
                self.turns.append(self.forms.message(written) or as_one)
        return printable(streamer.said)

    def _prompt(self, text: str) -> list[int]:
        """The token ids to answer; the oldest turns go where they fill the context."""
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
            text = self.tokenizer.apply_chat_template(
                spelled([*self.system, *turns], self.tokenizer.chat_template),
                tokenize=False,
                add_generation_prompt=True,
            )
        except TemplateError as error:
            raise ConfigError(Problem(f"{self.name}'s chat template refuses this: {error}")) from None
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


def answer_forms(tokenizer: Any) -> AnswerForms:
    """How the template of a tokenizer writes answers."""
    texts = {token.content: token for token in tokenizer.added_tokens_decoder.values() if token.special}
    variables = {name: str(text) for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
    return AnswerForms(ChatRenderer(tokenizer.chat_template, "its own", SpecialTokens(texts).pattern, variables))


class Streamer(TextStreamer):
    """Hands on an answer word by word, and its parts apart from one another where a template writes it in parts."""

    def __init__(self, tokenizer: Any, say: Callable[[str], None], forms: AnswerForms | None) -> None:
        self.forms = forms if forms and forms.in_parts else None
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=self.forms is None)
        self.say = say
        self.tokens: list[int] = []
        """What was generated, control tokens too."""
        self.written = ""
        """Its text, with control tokens where they part an answer."""
        self.said = ""
        """What was handed on, with what a terminal would obey."""

    def put(self, value: torch.Tensor) -> None:
        """What transformers calls with the prompt first, then with each token."""
        if not self.next_tokens_are_prompt:
            self.tokens += value.flatten().tolist()
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """What transformers calls with each piece."""
        self.written += text
        shown = self.forms.shown(self.written, stream_end) if self.forms else self.written
        piece, self.said = shown[len(self.said) :], shown
        if printable(piece):
            self.say(printable(piece))

    def flush(self) -> None:
        """Says what is held back because a word may still change: for an answer that was interrupted."""
        if self.token_cache:
            self.end()
