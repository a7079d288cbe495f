"""The ``Modelfile`` by which Ollama runs a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from titanflow.config.files.chat_template import TEMPLATE_FILE

ROLE, CONTENT = "user", "§content§"
TRIED = (
    [("user", "Hi")],
    [("system", "Be brief."), ("user", "Hi")],
    [("user", "Hi"), ("assistant", "Hello."), ("user", "And?")],
)
"""Conversations, each message a role and its content, on which a template in Go's form is tried."""
NOTE = """\
# Makes the model known to Ollama: ollama create {name} -f Modelfile
# llama.cpp was tried with the file; Ollama itself wasn't.
"""
LACKS = f"""\
# Ollama's form can't say the chat's template ({TEMPLATE_FILE}): Ollama looks for a similar one among those it knows.
"""


@dataclass(frozen=True)
class Turns:
    """A chat template that writes each message alike: around the role, around the content, and before an answer."""

    before: str
    between: str
    behind: str
    opening: str

    @classmethod
    def of(cls, render: Callable[[list[dict[str, str]], bool], str]) -> Turns | None:
        """Reads the turns off a rendered message; None if the template does more than this form can say.

        ``render`` takes messages, and whether an answer is to follow.
        """
        try:
            one = [{"role": ROLE, "content": CONTENT}]
            alone, asking = render(one, False), render(one, True)
            head, behind = alone.split(CONTENT)
            before, between = head.split(ROLE)
        except Exception:  # a template may raise anything, and a text may have no such parts
            return None
        turns = cls(before, between, behind, asking.removeprefix(alone))
        return turns if asking.startswith(alone) and all(turns._is_right(render, said) for said in TRIED) else None

    def _is_right(self, render: Callable[[list[dict[str, str]], bool], str], said: Sequence[tuple[str, str]]) -> bool:
        with suppress(Exception):
            messages = [{"role": role, "content": content} for role, content in said]
            return render(messages, True) == self.rendered(said)
        return False

    def rendered(self, said: Sequence[tuple[str, str]]) -> str:
        """A conversation, up to the model's answer."""
        return "".join(f"{self.before}{role}{self.between}{content}{self.behind}" for role, content in said) + (
            self.opening
        )

    def in_go(self) -> str:
        """The template in the language of Go's templates, which Ollama reads."""
        turn = f"{self.before}{{{{ .Role }}}}{self.between}{{{{ .Content }}}}{self.behind}"
        return f"{{{{ range .Messages }}}}{turn}{{{{ end }}}}{self.opening}"


def modelfile(file: str, name: str, tokenizer: Any, stops: Sequence[str], context: int, chats: bool) -> str:
    """The text of a ``Modelfile``.

    Args:
        file: the GGUF file beside it.
        name: the model's name.
        tokenizer: transformers' own.
        stops: the tokens that end a generation, as text.
        context: the positions that the model was trained on.
        chats: whether the model answers in conversations; otherwise it continues a text.
    """
    template: str | None = "{{ .Prompt }}"
    if chats and tokenizer.chat_template:
        turns = Turns.of(lambda messages, asks: _render(tokenizer, messages, asks))
        template = turns.in_go() if turns else None
    lines = [f"FROM ./{file}"]
    if template is not None and '"""' not in template:
        lines.append(f'TEMPLATE """{template}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in stops if '"' not in stop]
    lines += [f"PARAMETER num_ctx {context}", "PARAMETER temperature 0"]
    return NOTE.format(name=name) + ("" if template else LACKS) + "\n".join(lines) + "\n"


def _render(tokenizer: Any, messages: list[dict[str, str]], asks: bool) -> str:
    said = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
    # Ollama adds the first token itself.
    return str(said).removeprefix(tokenizer.bos_token or "")
