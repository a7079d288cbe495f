"""How the publish stage has GGUF files made, and which it publishes; the program that makes them is a stand-in."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from finished_run import FinishedRun

from titanflow.common.errors import ConfigError, StageFailed
from titanflow.publish import gguf
from titanflow.publish.bundle import is_published
from titanflow.publish.integrity import check_folder
from titanflow.publish.publish import publish
from titanflow.runs.results import PublishResult, result_of

NAME = "stdlib-sft-F16.gguf"
MAKES = """
import hashlib, json, pathlib, sys
export, out, *arguments = sys.argv[1:]
out, name = pathlib.Path(out), arguments[arguments.index("--name") + 1]
out.mkdir(parents=True)
files = {f"{name}-F16.gguf": b"GGUF", "Modelfile": b"FROM ./it"}
for file, data in files.items():
    (out / file).write_bytes(data)
digests = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
proof = {"format": "f16", "texts": 1000, "composed": 128, "conversations": 3, "positions": 128, "agreement": 1.0,
         "mean_kl": 1.2e-6, "largest_difference": 2e-4, "greedy_tokens": 127}
record = {"of": arguments[arguments.index("--of") + 1], "files": digests, "proofs": {f"{name}-F16.gguf": proof}}
(out / "proof.json").write_text(json.dumps(record))
(out.parent / "arguments.json").write_text(json.dumps(arguments))
"""
FAILS = "import sys; print('llama.cpp makes other tokens of hf_averysecrettoken', file=sys.stderr); sys.exit({})"


KILLED = """
import os, pathlib, sys
assert os.environ["GGML_NO_BACKTRACE"] == "1"
(pathlib.Path(sys.argv[2]).parent / ".gguf.partial").mkdir(parents=True)
print("loading", "GGML_ASSERT(1) failed", sep=chr(10), file=sys.stderr, flush=True)
os.abort()
"""


def made_by(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(gguf, "MAKE", (sys.executable, "-c", program))


def published(result: PublishResult) -> Path:
    assert result.status == "published"
    return Path(result.location)


def test_the_files_are_published_with_card_list_and_record(
    finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by(monkeypatch, MAKES)
    run = finished.to_publish(gguf=["f16"])
    result = publish(run)
    folder = published(result)
    assert (folder / NAME).read_bytes() == b"GGUF"
    assert result.files.keys() >= {NAME, "Modelfile"}
    assert result.gguf[NAME].mean_kl == 1.2e-6
    assert json.loads((folder / "titanflow.json").read_text())["gguf"][NAME]["texts"] == 1000
    checks, _ = check_folder(folder)
    assert all(check.passed for check in checks)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "## llama.cpp and Ollama" in card
    assert f"| `{NAME}` | 100.0% of 128 | 1e-06 | 0.0002 | 127 of 128 |" in card
    assert f"llama-server -m {NAME} -c 256 --temp 0\nollama create stdlib-sft -f Modelfile" in card
    assert "compared before publishing. The GGUF files were made from them, and weren't scored themselves.\n" in card
    assert "bring prompts into NFC yourself, as\n128 of these texts were." in card
    arguments = json.loads((run.folder / "arguments.json").read_text())
    assert arguments[:-2] == ["--name", "stdlib-sft", "--formats", "f16", "--chats"]


def test_without_the_key_nothing_is_made(finished: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    made_by(monkeypatch, FAILS.format(1))
    folder = published(publish(finished.to_publish()))
    assert not list(folder.glob("*.gguf"))
    assert "llama.cpp" not in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("status", "error"), [(1, StageFailed), (2, ConfigError)])
def test_a_file_that_fails_its_proof_is_not_published(
    finished: FinishedRun, monkeypatch: pytest.MonkeyPatch, status: int, error: type[Exception]
) -> None:
    made_by(monkeypatch, FAILS.format(status))
    run = finished.to_publish(gguf=["f16"])
    with pytest.raises(error, match=r"no GGUF file is published: llama\.cpp makes other tokens of") as caught:
        publish(run)
    assert "averysecrettoken" not in str(caught.value)
    assert not (run.folder / "model").exists()


def test_a_process_that_was_killed_says_so(finished: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp ends the process where it finds an assertion wrong, and ggml writes a debugger's trace."""
    made_by(monkeypatch, KILLED)
    run = finished.to_publish(gguf=["f16"])
    killed = r"^no GGUF file is published: titan\.gguf\.make was killed by SIGABRT: GGML_ASSERT\(1\) failed$"
    with pytest.raises(StageFailed, match=killed):
        publish(run)
    assert not (run.folder / ".gguf.partial").exists()


@pytest.mark.parametrize("file", [NAME, "Modelfile"])
def test_a_file_that_changed_behind_its_proof_is_not_published(
    finished: FinishedRun, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    made_by(monkeypatch, MAKES + f"\n(out / {file!r}).write_bytes(b'tampered')\n")
    run = finished.to_publish(gguf=["f16"])
    with pytest.raises(StageFailed, match="aren't those that were proved"):
        publish(run)
    assert not (run.folder / "model").exists()


def test_a_model_that_is_held_back_costs_no_proof(finished: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    made_by(monkeypatch, FAILS.format(1))
    gate = {"thresholds": {"stdlib_kind/acc": 0.99}}
    assert publish(finished.to_publish(gguf=["f16"], gate=gate)).status == "held back"


def test_proved_files_are_published_again_without_a_second_proof(
    finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by(monkeypatch, MAKES)
    run = finished.to_publish(gguf=["f16"])
    first = publish(run)
    made_by(monkeypatch, FAILS.format(1))
    assert publish(run).files == first.files
    # Another name or format is another file.
    with pytest.raises(StageFailed):
        publish(finished.to_publish(gguf=["f16"], repo_id="me/another"))
    (run.folder / "gguf" / NAME).write_bytes(b"changed since")
    with pytest.raises(StageFailed):
        publish(run)


def test_a_result_says_what_was_proved(finished: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from titanflow.publish.publish import main

    made_by(monkeypatch, MAKES)
    run = finished.to_publish(gguf=["f16"])
    assert main([str(run.write())]) == 0
    result = result_of(run.folder)
    assert isinstance(result, PublishResult)
    assert str(result.gguf[NAME]) == (
        "1,000 texts have the same tokens in llama.cpp, the likeliest next token is the same at 100.0% of 128 places, "
        "and the mean KL divergence is 1e-06 nats"
    )


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("stdlib-sft-F16.gguf", True),
        ("my.model_2-Q8_0.gguf", True),
        ("Modelfile", True),
        ("model.gguf", False),
        ("evil/x-F16.gguf", False),
        ("x-F16.gguf.part", False),
    ],
)
def test_which_files_may_be_published(name: str, is_one: bool) -> None:
    assert is_published(name) is is_one
