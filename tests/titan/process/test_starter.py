"""A program that a publication starts ends with it: the next publication makes its files in the same folder."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny_exports import write_byte_tokenizer

pytestmark = pytest.mark.slow
STARTER = "import subprocess, sys; subprocess.run([sys.executable, '-m', *sys.argv[1:]])"


def test_the_proof_of_gguf_files_ends_with_the_publication(tmp_path: Path) -> None:
    """It went on for as long as it took, as an orphan."""
    folder = write_byte_tokenizer(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 300}), encoding="utf-8")
    read = folder / "generation_config.json"
    os.mkfifo(read)
    arguments = [str(folder), str(tmp_path / "out"), "--name", "it", "--formats", "f32"]
    starter = subprocess.Popen([sys.executable, "-c", STARTER, "titan.gguf.make", *arguments])

    def give_up() -> None:
        # A program that fails before it reads must not leave the test waiting for it.
        starter.wait()
        os.close(os.open(read, os.O_RDONLY | os.O_NONBLOCK))

    threading.Thread(target=give_up).start()
    # Opens once the program reads, which then waits for what is never written.
    pipe = os.open(read, os.O_WRONLY)
    assert starter.poll() is None
    starter.send_signal(signal.SIGKILL)
    waiting = select.poll()
    waiting.register(pipe, select.POLLERR)
    assert waiting.poll(60_000), "the program still holds the other end"
    os.close(pipe)
