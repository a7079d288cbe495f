"""What was published, behind a server that speaks OpenAI's protocol: docs/serving.md."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from forked_ranks import free_port, run_stages
from tiny_experiment import ROOT, question, write_tiny_experiment
from watching import PATIENCE, wait_for

from titanflow.planning.plan import make_plan

pytestmark = pytest.mark.slow
PAGE = ROOT / "docs" / "serving.md"
LENGTH = 12


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[str]
    url: str
    model: str
    folder: Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run was finished: its published folder is ``runs/tiny/main/publish/model``."""
    root = tmp_path_factory.mktemp("served")
    # Rows that two turns fit into: `titanflow chat` stops where the model's context ends, a server doesn't.
    longer = [f"{stage}.training.seq_len=128" for stage in ("pretrain", "sft")]
    run_stages(make_plan("tiny", write_tiny_experiment(root), overrides=[*longer, "pretrain.validation.seq_len=128"]))
    return root


def command_of_the_page(port: int) -> list[str]:
    (line,) = re.findall(r"^transformers serve .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    line = line.partition("  #")[0].replace("runs/my/main", "runs/tiny/main").replace("8000", str(port))
    return [sys.executable, "-m", "transformers.cli.transformers", *shlex.split(line)[1:]]


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    port = free_port()
    command, log = command_of_the_page(port), folder / "serve.log"
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=file, stderr=file, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: process.poll() is not None or "Uvicorn running" in log.read_text(encoding="utf-8"), "a server")
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield Served(process, url, command[command.index("serve") + 1], folder)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def client(served: Served, monkeypatch: pytest.MonkeyPatch) -> openai.OpenAI:
    # A proxy isn't asked for this machine, as titanflow sees to when it is imported.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def test_its_greedy_answers_are_those_of_chat(served: Served, client: openai.OpenAI) -> None:
    chat = [sys.executable, "-m", "titanflow.cli.main", "chat", served.model, f"--max-new-tokens={LENGTH}"]
    texts = [question("stone"), "And the river?"]
    done = subprocess.run(chat, input="\n".join(texts), capture_output=True, text=True, cwd=served.folder)
    assert done.returncode == 0, done.stderr
    messages: list[dict[str, str]] = []
    for text in texts:
        messages.append({"role": "user", "content": text})
        answer = client.chat.completions.create(
            model=served.model, messages=messages, temperature=0, max_tokens=LENGTH
        ).choices[0]
        assert answer.finish_reason in ("stop", "length")
        messages.append({"role": "assistant", "content": answer.message.content})
    assert "".join(f"{messages[turn]['content']}\n" for turn in (1, 3)) == done.stdout


def test_an_answer_comes_in_pieces(served: Served, client: openai.OpenAI) -> None:
    asked = {"model": served.model, "messages": [{"role": "user", "content": question("bird")}], "max_tokens": LENGTH}
    whole = client.chat.completions.create(**asked, temperature=0).choices[0].message.content
    pieces = [one.choices[0].delta.content or "" for one in client.chat.completions.create(**asked, stream=True)]
    # No temperature is greedy, too: generation_config.json says so.
    assert "".join(pieces) == whole


def test_another_model_s_name_is_refused(served: Served, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "?"}])
    assert served.model in refused.value.response.text
    assert [one.id for one in client.models.list()] == [served.model]


def test_a_stop_ends_it(served: Served) -> None:
    served.process.send_signal(signal.SIGINT)
    served.process.wait(PATIENCE)
    assert "Finished server process" in (served.folder / "serve.log").read_text(encoding="utf-8")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{served.url}/health", trust_env=False)
