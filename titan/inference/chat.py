"""Talks with one model or with several side by side: ``python -m titan.inference.chat FOLDER_OR_REPO [MORE…]``.

In a terminal answers come as they are generated, and ctrl-C stops one. Elsewhere each line of the input is answered in
plain text, as one conversation. ``/help`` lists what can be typed in place of a question, on both ways.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from titanflow.common.collector import collector_at_rest
from titanflow.common.errors import ConfigError, Problem, TitanflowError

if TYPE_CHECKING:
    from titan.inference.conversation import Conversation

MAX_NEW_TOKENS = 256
RESET, HELP, LEAVE = "/reset", "/help", ("/quit", "/exit")
COMMANDS = f"""{RESET}         begins anew
{" or ".join(LEAVE)} leaves, as ctrl-D does
{HELP}          shows this"""
INTERRUPTED = 130

Ask = Callable[["Conversation", str, Callable[[str], None]], str]
"""Has a model answer a text; the callback gets the pieces of the answer."""


def load(sources: Sequence[str], system: str | None) -> list[Conversation]:
    """A conversation with each model, which has a short name if these are unique."""
    from titan.inference.conversation import Conversation, model_folder
    from titan.process.quiet import quiet_transformers

    quiet_transformers()
    folders = [model_folder(source) for source in sources]
    short = [source.rstrip("/").rpartition("/")[2] for source in sources]
    names = short if len(set(short)) == len(short) else list(sources)
    return [Conversation(name, folder, system) for name, folder in zip(names, folders, strict=True)]


def talk(conversations: list[Conversation], ask: Ask) -> None:
    """The conversation in a terminal; ends with ctrl-D, ``/quit``, or ctrl-C at the prompt."""
    show = stream if len(conversations) == 1 else side_by_side
    for text in typed():
        if obeyed(text, conversations):
            continue
        try:
            show(conversations, text, ask)
        except KeyboardInterrupt:
            print("\n(stopped)")
        except TitanflowError as error:
            print(f"error: {error}", file=sys.stderr)
        for conversation in conversations:
            if conversation.forgot:
                print(f"({conversation.name} left out the oldest {conversation.forgot} turns: they no longer fit)")


def typed() -> Iterator[str]:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives `input` a history and arrow keys)
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if text in LEAVE:
            return
        if text:
            yield text


def stream(conversations: list[Conversation], text: str, ask: Ask) -> None:
    ask(conversations[0], text, lambda piece: print(piece, end="", flush=True))
    print()


def side_by_side(conversations: list[Conversation], text: str, ask: Ask) -> None:
    """A column for each model under its name; the models answer in turn."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    answers = [Text() for _ in conversations]
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0))
    for conversation in conversations:
        table.add_column(Text(conversation.name, style="bold"), ratio=1, overflow="fold")
    table.add_row(*answers)
    with Live(table, console=Console(highlight=False), refresh_per_second=12):
        for conversation, answer in zip(conversations, answers, strict=True):
            ask(conversation, text, lambda piece, answer=answer: answer.append(piece))  # type: ignore[misc]


def answer_lines(conversations: list[Conversation], ask: Ask) -> None:
    for line in map(str.strip, sys.stdin):
        if line in LEAVE:
            return
        if obeyed(line, conversations):
            continue
        for conversation in conversations if line else []:
            answer = ask(conversation, line, lambda piece: None)
            print(answer if len(conversations) == 1 else f"{conversation.name}: {answer}", flush=True)


def obeyed(text: str, conversations: list[Conversation]) -> bool:
    """Does what a line asks of the program; False for a question.

    What is said of it is no answer, so it goes to stderr. A question may begin with a slash: only a single word is
    taken for a mistyped command.
    """
    if text == RESET:
        for conversation in conversations:
            conversation.reset()
        return True
    is_command = re.fullmatch(r"/[a-z]+", text) is not None
    if is_command:
        said = COMMANDS if text == HELP else f"{text} is no command.\n{COMMANDS}"
        print(said, file=sys.stderr, flush=True)
    return is_command


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m titan.inference.chat", description=__doc__)
    parser.add_argument("models", nargs="+", help="a folder, a finished stage's, or owner/name[@revision] on the Hub")
    parser.add_argument("--max-new-tokens", type=int, default=MAX_NEW_TOKENS, help="the most tokens of an answer")
    parser.add_argument("--temperature", type=float, default=0.0, help="of sampling; 0 takes the likeliest token")
    parser.add_argument("--system", help="what the conversation begins with")
    given = parser.parse_args(arguments)

    def ask(conversation: Conversation, text: str, say: Callable[[str], None]) -> str:
        return conversation.answer(text, given.max_new_tokens, given.temperature, say)

    try:
        if given.max_new_tokens < 1 or given.temperature < 0:
            raise ConfigError(Problem("--max-new-tokens is at least 1, --temperature at least 0"))
        with collector_at_rest():
            conversations = load(given.models, given.system)
        (talk if sys.stdin.isatty() and sys.stdout.isatty() else answer_lines)(conversations, ask)
    except TitanflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
