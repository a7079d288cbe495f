"""Checks that training sees the tokens that the finished model's users will make.

Users load the tokenizer through ``transformers.AutoTokenizer``, which rebuilds some from their class, and encode a text
as a whole. The encoder here works piece by piece, so rows of the data are encoded both ways and compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from titanflow.common.errors import Problem
from titanflow.data.chat.encoder import ChatEncoder, Encoded
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.seams import tokens_shown
from titanflow.data.chat.render import shared_length
from titanflow.data.tokenizer.tokenizer import inference_tokenizer

# Tokens to show on either side of the first difference.
_AROUND = 4
# Tokens that may differ where an answer begins.
_IN_A_SEAM = 32


class InferenceCheck:
    """Compares with the tokenizer of one folder, as ``AutoTokenizer`` loads it."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = inference_tokenizer(folder)

    def text_fault(self, text: str, ids: list[int]) -> Problem | None:
        theirs = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return None if theirs == ids else self._problem("the text", ids, theirs, "text")

    def chat_fault(self, encoder: ChatEncoder, conversation: Conversation, encoded: Encoded) -> Problem | None:
        """The difference in the tokens of a conversation or of a trained turn's prompt, or None.

        A row that quotes special tokens isn't compared: ``AutoTokenizer`` takes them for control tokens.
        """
        if not encoded.turns or encoded.quotes:
            return None
        ids = encoded.ids.tolist()
        for turn in encoded.turns:
            prompt = self._chat(encoder, conversation, turn)
            if ids[: len(prompt)] != prompt:
                return self._problem(f"the prompt of messages[{turn}]", ids[: len(prompt)], prompt, f"messages[{turn}]")
        theirs = self._chat(encoder, conversation)
        if ids == theirs or (encoder.whole(conversation) == theirs and _differ_in_a_seam(encoded, theirs)):
            return None
        if not self._text_of(encoder, conversation).startswith(self._text_of(encoder, conversation, encoded.turns[-1])):
            # The template writes another history once the answer is there; the row has the prompt's.
            return None
        return self._problem("the conversation", ids, theirs, "messages")

    def _chat(self, encoder: ChatEncoder, conversation: Conversation, turn: int | None = None) -> list[int]:
        """The tokens of a conversation, or of a turn's prompt."""
        return list(self._rendered(encoder, conversation, turn, return_dict=True)["input_ids"])

    def _text_of(self, encoder: ChatEncoder, conversation: Conversation, turn: int | None = None) -> str:
        return str(self._rendered(encoder, conversation, turn, tokenize=False))

    def _rendered(self, encoder: ChatEncoder, conversation: Conversation, turn: int | None, **form: bool) -> Any:
        return self.tokenizer.apply_chat_template(
            encoder.renderer.given(conversation)[:turn],
            tools=conversation.tools,
            chat_template=encoder.renderer.program.source,
            add_generation_prompt=turn is not None,
            **form,
        )

    def _problem(self, what: str, ours: list[int], theirs: list[int], key: str) -> Problem:
        at = shared_length(ours, theirs)
        return Problem(
            f"training would see other tokens in {what} than inference, from token {at} on: {self._shown(ours, at)}",
            key,
            expected=f"as AutoTokenizer ({type(self.tokenizer).__name__}) encodes it: {self._shown(theirs, at)}",
            hint="take a tokenizer that changes nothing at the ends of a text (no Strip, no prefix for each piece), "
            "or a chat template whose header ends with a special token",
        )

    def _shown(self, ids: list[int], at: int) -> str:
        shown = ids[max(0, at - _AROUND) : at + _AROUND]
        return tokens_shown(self.tokenizer.convert_ids_to_tokens(shown), shown)


def _differ_in_a_seam(encoded: Encoded, theirs: list[int]) -> bool:
    """Whether tokens differ in one place only, and an answer begins there.

    In the whole text, the answer's beginning may share a token with the end of its header. No prompt has that token,
    since it ends before the answer.
    """
    ours, trained = encoded.ids.tolist(), encoded.trained.tolist()
    first = shared_length(ours, theirs)
    behind = min(shared_length(ours[::-1], theirs[::-1]), min(len(ours), len(theirs)) - first)
    last = len(ours) - behind
    begins = any(trained[at] and not trained[at - 1] for at in range(max(first, 1), min(last + 1, len(ours))))
    return begins and max(last, len(theirs) - behind) - first <= _IN_A_SEAM
