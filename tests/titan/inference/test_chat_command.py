"""The command in a process of its own: with pipes, and once in a terminal."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_exports import write_byte_tokenizer
from watching import PATIENCE
from wrong_exports import edit_config, export_tiny

from titan.inference.chat import main
from titan.inference.conversation import Conversation


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two exports; the second one has no template."""
    folder = tmp_path_factory.mktemp("models")
    first = export_tiny(folder, "llama3", {}, write_byte_tokenizer(folder / "tokenizer")).folder
    second = shutil.copytree(first, folder / "plain")
    (second / "chat_template.jinja").unlink()
    return first, second


def expected(folder: Path, *texts: str, count: int = 8, system: str | None = None) -> list[str]:
    conversation = Conversation("it", folder, system)
    return [conversation.answer(text, count, 0.0, lambda piece: None) for text in texts]


@pytest.mark.parametrize("leave", ["/quit", "/exit"])
def test_each_line_is_answered_and_the_answers_follow_one_another(models: tuple[Path, Path], leave: str) -> None:
    command = [sys.executable, "-m", "titanflow.cli.main", "chat", str(models[0]), "--max-new-tokens", "8"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, "--system", "Be brief."], **pipes)
    process.stdin.write("Is it a class?\n")
    process.stdin.flush()
    first, second = expected(models[0], "Is it a class?", "And that?", system="Be brief.")
    _, third = expected(models[0], "Is it a class?", "/usr/lib?", system="Be brief.")
    # The answer is there before anything else is asked.
    assert process.stdout.readline() == f"{first}\n"
    said = f"\nAnd that?\n/reset\n/help\nIs it a class?\n/rset\n/usr/lib?\n{leave}\nnot read\n"
    out, err = process.communicate(said, PATIENCE)
    assert process.returncode == 0, err
    assert out == f"{second}\n{first}\n{third}\n"
    assert first != expected(models[0], "Is it a class?")[0]
    assert err.count("/exit") == 2
    assert "/rset is no command" in err


def test_several_models_answer_under_their_names(
    models: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("titan.inference.chat.sys.stdin", _Lines(["class Path\n"]))
    assert main(["--max-new-tokens=8", *map(str, models)]) == 0
    answers = [expected(folder, "class Path")[0] for folder in models]
    assert capsys.readouterr().out == f"llama3: {answers[0]}\nplain: {answers[1]}\n"


class _Lines(list[str]):
    """What stands in for a stdin that is no terminal."""

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no-such-model"], "error: 'no-such-model' is no model"),
        (["{first}", "--temperature=-1"], "--temperature at least 0"),
        (["{second}", "--system=Be brief."], "has no chat template"),
    ],
)
def test_bad_input_ends_with_2(
    models: tuple[Path, Path], arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([text.format(first=models[0], second=models[1]) for text in arguments]) == 2
    assert says in capsys.readouterr().err


class Terminal:
    """A command in a terminal of 80 columns."""

    def __init__(self, *arguments: str) -> None:
        self.screen, terminal = pty.openpty()
        command = [sys.executable, "-m", "titan.inference.chat", *arguments]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
        self.process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True
        )
        os.close(terminal)
        self.shown = b""

    def wait_for(self, text: str) -> None:
        """Reads until ``text`` is shown, and forgets what was shown until then."""
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self.screen], [], [], 1.0)[0]:
                self.shown += os.read(self.screen, 4096)
        self.shown = self.shown.partition(text.encode())[2]

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def close(self) -> None:
        os.close(self.screen)
        self.process.kill()
        self.process.wait()


def endless(model: Path, folder: Path) -> Path:
    """The same model, which nothing ends."""
    shutil.copytree(model, folder)
    edit_config(folder, max_position_embeddings=1_000_000, eos_token_id=None)
    (folder / "generation_config.json").unlink()
    return folder


def test_in_a_terminal_answers_stream_and_control_c_stops_one(models: tuple[Path, Path], tmp_path: Path) -> None:
    terminal = Terminal("--max-new-tokens=999999", *(str(endless(model, tmp_path / model.name)) for model in models))
    try:
        terminal.wait_for("> ")
        terminal.type("class Path\n")
        terminal.wait_for("llama3")
        terminal.wait_for("plain")
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.wait_for("(stopped)")
        terminal.wait_for("> ")
        terminal.type("/quit\n")
        assert terminal.process.wait(PATIENCE) == 0
    finally:
        terminal.close()
