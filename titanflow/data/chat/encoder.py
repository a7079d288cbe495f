"""Encodes conversations into tokens and marks the trained ones.

The rendered text is cut at the template's own special tokens, as the ``tokenizers`` library cuts it, and where an
answer begins. Each piece is encoded by its place (:mod:`titanflow.data.tokenizer.text_encoder`). A prompt's tokens are
then exactly those of the generation prompt in inference, and an answer's first token never merges with its header.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Set
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from titanflow.common.errors import DataError, Problem
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.seams import Seams, Tear
from titanflow.data.chat.render import ChatRefused, ChatRenderer, Rendered, ToolArguments, Turns, shared_length
from titanflow.data.tokenizer.special_tokens import SpecialTokens
from titanflow.data.tokenizer.text_encoder import Place
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer

# The tokens of so many texts up to this length are remembered: headers, line ends, short answers.
_SHORT = 24
_REMEMBERED = 4096


@dataclass
class Piece:
    """A piece of a rendered text; ``ids`` are its tokens, None until it is encoded.

    ``start`` is its place in characters; ``is_cut`` says that it follows another text, with no special token between.
    """

    text: str
    trained: bool
    place: Place = "opening"
    ids: list[int] | None = None
    start: int = 0
    is_cut: bool = False


@dataclass(frozen=True)
class Encoded:
    """A conversation's tokens, int64 ``[tokens]``, and for each whether it is trained.

    ``turns`` are the numbers of the trained messages; ``quotes`` says that messages or tools quote a special token.
    """

    ids: NDArray[np.int64]
    trained: NDArray[np.bool_]
    turns: list[int]
    quotes: bool = False

    @property
    def runs(self) -> list[list[int]]:
        """``[start, end]`` of each unbroken run of trained tokens."""
        borders = np.flatnonzero(np.diff(self.trained, prepend=False, append=False))
        return borders.reshape(-1, 2).tolist()


class ChatEncoder:
    """Renders conversations with one template and encodes them with one tokenizer.

    Attributes:
        header: the tokens that ask for an assistant's turn, from the first special one on; may be empty.
        end_of_turn_id: the token that ends a conversation's last answer.
        closes_conversations: whether the end of text follows a conversation's last end of turn, as in Phi's template.
    """

    def __init__(
        self,
        tokenizer: LoadedTokenizer,
        template: str,
        name: str = "chatml",
        turns: Turns = "all",
        tool_arguments: ToolArguments = "mapping",
    ) -> None:
        self.tokenizer = tokenizer
        self.name = name
        self.special = SpecialTokens({text: token for text, (_, token) in tokenizer.special.items()})
        self._seams = Seams(tokenizer)
        self._short: dict[tuple[str, Place], list[int]] = {}
        self.renderer = ChatRenderer(template, name, self.special.pattern, tokenizer.variables, turns, tool_arguments)
        try:
            self.header = self._header()
            self.end_of_turn_id = self._end_of_turn()
        except ChatRefused as error:
            raise DataError(Problem(str(error), "chat.template")) from error
        self.closes_conversations = self._closes_conversations()

    def encode(self, conversation: Conversation) -> Encoded:
        (encoded,) = self.encode_batch([conversation])
        if isinstance(encoded, ChatRefused):
            raise encoded
        return encoded

    def encode_batch(self, conversations: list[Conversation]) -> list[Encoded | ChatRefused]:
        """The tokens of each conversation, or why it is refused.

        An assistant's content, calls and end of turn are trained. Headers, other roles' turns and the template's text
        between turns are not.
        """
        rendered = [self._rendered(conversation) for conversation in conversations]
        pieces = [[] if isinstance(one, ChatRefused) else self._pieces(one, one.borders) for one in rendered]
        self._tokenise(pieces)
        torn = self._seams.torn(pieces)
        return [
            one
            if isinstance(one, ChatRefused)
            else self._refusal(one, tears) or _assembled(row, one.turns, bool(one.quoted))
            for one, row, tears in zip(rendered, pieces, torn, strict=True)
        ]

    def whole(self, conversation: Conversation) -> list[int]:
        """The tokens of a conversation that isn't cut where answers begin: they may share a token with their header."""
        return self._ids(self.renderer.render(conversation))

    def prompt(self, conversation: Conversation) -> list[int]:
        return self._ids(self.renderer.prompt(conversation))

    def _ids(self, rendered: Rendered) -> list[int]:
        pieces = self._pieces(rendered, frozenset())
        self._tokenise([pieces])
        return _assembled(pieces, []).ids.tolist()

    def _refusal(self, rendered: Rendered, tears: list[Tear]) -> ChatRefused | None:
        """Why a row can't have the tokens of inference where its answers begin, or None.

        Only the last answer may begin with a token of its own: later prompts have the earlier ones in their history,
        encoded as a whole.
        """
        for tear in tears:
            starts = zip(rendered.turns, rendered.starts, strict=True)
            if (number := next((turn for turn, start in starts if start > tear.start), None)) is not None:
                way_out = "" if self.renderer.turns != "all" else "; chat.turns: each makes a row of each turn"
                return ChatRefused(
                    f"messages[{number}] would be trained after {tear.parts}, and inference asks for it after "
                    f"{tear.whole}: an earlier answer changes tokens of its header{way_out}"
                )
            if tear.changes_text:
                return ChatRefused(
                    f"training would see other tokens in the conversation than inference: {tear.parts} where an answer "
                    f"begins, in place of {tear.whole}; take a tokenizer that changes nothing at the ends of a text"
                )
        return None

    def _rendered(self, conversation: Conversation) -> Rendered | ChatRefused:
        try:
            rendered = self.renderer.render(conversation)
            rendered.text.encode()
        except ChatRefused as refused:
            return refused
        except UnicodeEncodeError:
            return ChatRefused("it holds half a character (a lone surrogate), which UTF-8 can't encode")
        return rendered

    def _pieces(self, rendered: Rendered, borders: Set[int]) -> list[Piece]:
        """The pieces to encode by themselves: each special token, and the texts between these and the borders."""
        text, places = rendered.text, sorted(borders)
        pieces: list[tuple[int, int, bool, list[int] | None]] = []
        position = 0
        for token in self.special.find(text):
            pieces += _cut(position, token.start, places)
            pieces.append((token.start, token.end, False, [self.tokenizer.special[token.text][0]]))
            position = token.end
        pieces += _cut(position, len(text), places)
        spans = [*rendered.spans, (len(text) + 1, len(text) + 1)]
        found: list[Piece] = []
        place_behind = self.tokenizer.text.place_behind
        span = 0
        for start, end, is_cut, ids in pieces:
            while start >= spans[span][1]:
                span += 1
            said = "" if ids else _unquoted(text[start:end], rendered)
            if ids or said:
                place = place_behind(found[-1].text) if is_cut else "following" if start else "opening"
                found.append(Piece(said, spans[span][0] <= start, place, ids, start, is_cut))
        return found

    def _tokenise(self, rows: list[list[Piece]]) -> None:
        """Encodes all texts at once and remembers the short ones, which are mostly the template's own."""
        waiting: dict[Place, list[Piece]] = {}
        for piece in itertools.chain.from_iterable(rows):
            if piece.ids is None:
                piece.ids = self._short.get((piece.text, piece.place))
            if piece.ids is None:
                waiting.setdefault(piece.place, []).append(piece)
        for place, pieces in waiting.items():
            encoded = self.tokenizer.text.encode_batch([piece.text for piece in pieces], place)
            for piece, piece.ids in zip(pieces, encoded, strict=True):
                if len(piece.text) <= _SHORT and len(self._short) < _REMEMBERED:
                    self._short[piece.text, place] = piece.ids

    def _header(self) -> list[int]:
        """The tokens that the generation prompt adds to a user's turn, from the first special one on."""
        probe = Conversation([{"role": "user", "content": "question"}])
        prompt, without = self.renderer.prompt(probe), self.renderer.plain(probe)
        added = prompt.text.removeprefix(without.text) if prompt.text.startswith(without.text) else ""
        first = next(self.special.find(added), None)
        return self._ids(replace(prompt, text=added[first.start :])) if first else []

    def _end_of_turn(self) -> int:
        """The special token that ends an assistant's span, found by rendering a probe."""
        probe = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
        if self.renderer.opening:
            probe[1]["reasoning_content"] = "thoughts"
        encoded = self.encode(Conversation(probe))
        spoken = encoded.ids[encoded.trained].tolist()
        said = self.tokenizer.decode(spoken)
        if not (self.renderer.is_marked or self.header) and (found := self._unasked(said, probe)):
            found = f"the template ignores add_generation_prompt: {found}"
            hint = (
                "mark the assistant's text with {% generation %}, or write its header if add_generation_prompt is set"
            )
            raise DataError(Problem(found, "chat.template", origin=self.name, hint=hint))
        # Some templates mark the line end after the end of turn as the assistant's, too.
        while spoken and not self.tokenizer.decode([spoken[-1]]).strip():
            spoken.pop()
        if not spoken or spoken[-1] not in self.tokenizer.special_ids:
            found = f"with the tokenizer {self.tokenizer.folder} an assistant's turn ends in no special token"
            expected = "an end of turn inside {% generation %} that is one special token of the tokenizer"
            hint = (
                "a model that isn't trained on its end of turn never stops; "
                f"the tokenizer's special tokens: {', '.join(self.tokenizer.special) or 'none'}"
            )
            raise DataError(Problem(found, "chat.template", self.name, expected, hint))
        return int(spoken[-1])

    def _unasked(self, said: str, probe: list[dict[str, str]]) -> str:
        """The fault of a template that has no generation prompt, or always writes one; empty if there is none."""
        if not said.lstrip().startswith("answer"):
            return f"an answer would begin with {said.partition('answer')[0]!r}"
        asked = self.renderer.prompt(Conversation(probe[:1])).text
        _, behind = self._last_turn(probe)
        opens_another = behind.strip() and asked.endswith(behind)
        return "it writes the header of another answer behind each answer" if opens_another else ""

    def _closes_conversations(self) -> bool:
        until, behind = self._last_turn([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
        ends = [token.text for token in self.special.find(until)]
        is_ended = bool(ends) and until.rstrip().endswith(ends[-1])
        return is_ended and behind.strip() == self.tokenizer.variables["eos_token"]

    def _last_turn(self, probe: list[dict[str, str]]) -> tuple[str, str]:
        """A conversation's text in two parts: the second goes when more follows. No special token is split."""
        try:
            ended = self.renderer.plain(Conversation(probe)).text
            followed = self.renderer.plain(Conversation([*probe, probe[0]])).text
        except ChatRefused:
            return "", ""
        shared = shared_length(ended, followed)
        shared = next((token.start for token in self.special.find(ended) if token.end > shared > token.start), shared)
        return ended[:shared], ended[shared:]


def _assembled(pieces: list[Piece], turns: list[int], quotes: bool = False) -> Encoded:
    lists = [piece.ids or [] for piece in pieces]
    ids = np.fromiter(itertools.chain.from_iterable(lists), np.int64, sum(map(len, lists)))
    trained = np.repeat(np.array([piece.trained for piece in pieces], np.bool_), [len(one) for one in lists])
    return Encoded(ids, trained, turns, quotes)


def _cut(start: int, end: int, borders: list[int]) -> list[tuple[int, int, bool, None]]:
    """The pieces of a text without special tokens; the third value says whether a piece is cut from the one before."""
    if start == end:
        return []
    inner = borders[bisect_right(borders, start) : bisect_left(borders, end)]
    return [(one, other, one > start, None) for one, other in itertools.pairwise([start, *inner, end])]


def _unquoted(text: str, rendered: Rendered) -> str:
    for stand_in, token in rendered.quoted.items():
        text = text.replace(stand_in, token)
    return text
