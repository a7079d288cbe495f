from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from watching import PATIENCE, wait_for

from titanflow.common.digests import folder_digests
from titanflow.common.errors import DataError
from titanflow.common.file_lock import in_turn
from titanflow.data import prepare as stage
from titanflow.data.dataset_info import read_info
from titanflow.data.prepared import PreparedRows
from titanflow.data.tokenizer.tokenizer import load_tokenizer
from titanflow.runs.contract import PREPARING_FILE, StageRun
from titanflow.runs.results import read_result

TEXT = "def read(path):\n    with open(path) as file:\n        return file.read()\n" * 20
USER = {"role": "user", "content": "Hi"}
CHAT = {"messages": [USER, {"role": "assistant", "content": "Hello"}]}
COMMAND = [sys.executable, "-m", "titanflow.data.prepare"]


@pytest.fixture
def text(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "corpus.txt").write_text(TEXT)
    return {"name": "corpus", "path": str(tmp_path / "corpus.txt")}


@pytest.fixture
def chats(write_jsonl: Callable[..., Path]) -> dict[str, Any]:
    return {"name": "chats", "kind": "chat", "path": str(write_jsonl("chats.jsonl", CHAT, CHAT, CHAT))}


def data_folder(run: StageRun) -> Path:
    return Path(run.config["workspace"]) / "data"


def entries(run: StageRun) -> list[str]:
    folder = data_folder(run)
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_everything_is_made_and_reported(
    prepare_run: Callable[..., StageRun], text: dict[str, Any], chats: dict[str, Any]
) -> None:
    run = prepare_run(text, chats)
    result = stage.prepare(run)
    made_text, made_chats = (result.datasets[plan["folder"]] for plan in run.config["datasets"])
    assert (made_text["documents"], made_text["bytes"]) == (1, len(TEXT))
    assert made_text["rows"] == (made_text["tokens"] - 1) // 32
    assert (made_chats["rows"], made_chats["seq_len"]) == (3, 32)
    assert made_text["fingerprint"] == run.config["datasets"][0]["fingerprint"]
    assert load_tokenizer(Path(run.config["tokenizer"]["folder"])).vocab_size <= 300
    assert len(entries(run)) == 3
    assert sorted(path.name for path in run.folder.iterdir()) == ["run.yaml"]


def test_what_is_complete_is_left_as_it_is(
    prepare_run: Callable[..., StageRun], text: dict[str, Any], chats: dict[str, Any]
) -> None:
    run = prepare_run(text, chats)
    first = stage.prepare(run)
    times = {path: path.stat().st_mtime_ns for path in data_folder(run).rglob("*")}
    Path(text["path"]).unlink()
    assert stage.prepare(run).datasets == first.datasets
    assert {path: path.stat().st_mtime_ns for path in data_folder(run).rglob("*")} == times


def test_only_what_is_missing_is_made(
    prepare_run: Callable[..., StageRun], text: dict[str, Any], chats: dict[str, Any]
) -> None:
    alone = prepare_run(chats, train_on=text)
    stage.prepare(alone)
    tokenizer = folder_digests(Path(alone.config["tokenizer"]["folder"]))
    both = prepare_run(text, chats)
    assert both.config["tokenizer"]["folder"] == alone.config["tokenizer"]["folder"]
    stage.prepare(both)
    assert folder_digests(Path(both.config["tokenizer"]["folder"])) == tokenizer
    assert len(entries(both)) == 3


def test_two_processes_give_the_bytes_of_one(
    prepare_run: Callable[..., StageRun], text: dict[str, Any], chats: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.txt").write_text(TEXT * (number + 1))
    many = {"name": "many", "path": str(folder)}
    run = prepare_run(many, chats, num_proc=1)
    stage.prepare(run)
    first = folder_digests(data_folder(run))
    data_folder(run).rename(tmp_path / "first")
    stage.prepare(prepare_run(many, chats, num_proc=2))
    assert folder_digests(data_folder(run)) == first


def test_columns_that_no_document_is_read_from_are_shown(
    prepare_run: Callable[..., StageRun], write_jsonl: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_jsonl("titled.jsonl", *({"text": TEXT, "title": f"On {number}"} for number in range(3)))
    run = prepare_run({"name": "titled", "path": str(path)})
    (folder,) = stage.prepare(run).datasets
    assert read_info(Path(folder)).unread == {"title": 3}
    assert "titled: nothing reads: 3 × title" in capsys.readouterr().err


def test_a_given_tokenizer_is_copied_and_used(
    prepare_run: Callable[..., StageRun], text: dict[str, Any], tokenizer_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(tokenizer_folder, tmp_path, dirs_exist_ok=True)
    run = prepare_run(text, tokenizer=str(tmp_path))
    stage.prepare(run)
    assert folder_digests(Path(run.config["tokenizer"]["folder"])) == folder_digests(tokenizer_folder)
    tokens = np.load(Path(run.config["datasets"][0]["folder"]) / "tokens.npy").tolist()
    assert tokens == [*load_tokenizer(tokenizer_folder).encode(TEXT), 0]


@pytest.mark.parametrize("flags", [{"single_word": True}, {"split_special_tokens": True}])
def test_a_tokenizer_that_no_export_could_have_is_refused_before_anything_is_written(
    prepare_run: Callable[..., StageRun], text: dict[str, Any], tokenizer_folder: Path, tmp_path: Path, flags: Any
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    shutil.copytree(tokenizer_folder, given, dirs_exist_ok=True)
    described, config = (json.loads((given / name).read_text()) for name in ("tokenizer.json", "tokenizer_config.json"))
    (given / "tokenizer_config.json").write_text(json.dumps(config | flags))
    described["added_tokens"][0] |= {key: flags[key] for key in ("single_word",) if key in flags}
    (given / "tokenizer.json").write_text(json.dumps(described))
    run = prepare_run(text, tokenizer=str(given))
    with pytest.raises(
        DataError, match=r"tokenizer\.path: transformers encodes a text behind <\|endoftext\|> otherwise"
    ):
        stage.prepare(run)
    assert entries(run) == []


def test_a_users_template_is_used(
    prepare_run: Callable[..., StageRun], text: dict[str, Any], chats: dict[str, Any], tmp_path: Path
) -> None:
    template = tmp_path / "own.jinja"
    template.write_text(
        "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}<|im_end|>"
        "{% endgeneration %}{% else %}Q:{{ m.content }}\n{% endif %}{% endfor %}"
    )
    run = prepare_run(text, chats, template=str(template))
    stage.prepare(run)
    input_ids, labels, *_ = PreparedRows.open(run.config["datasets"][1]["folder"], 32).row(0)
    backend = load_tokenizer(Path(run.config["tokenizer"]["folder"])).backend
    assert backend.decode([int(token) for token in input_ids if token != 3], skip_special_tokens=False).startswith(
        "Q:Hi\nA:Hello"
    )
    assert (
        backend.decode([int(label) for label in labels if label >= 0], skip_special_tokens=False) == "Hello<|im_end|>"
    )


def messages(*turns: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(turns)}


BAD_CHATS = {
    "a role that doesn't exist": (
        messages(USER, {"role": "asistant", "content": "x"}),
        r"chats\.jsonl:2: messages\[1\]\.role: there is no role 'asistant'[\s\S]*system, user, assistant, tool",
    ),
    "no content": (
        messages(USER, {"role": "assistant", "content": None}),
        r"chats\.jsonl:2: messages\[1\]\.content: the message has no content",
    ),
    "no assistant turn": (messages(USER), r"chats\.jsonl:2: messages: the conversation has no assistant turn"),
    "text for messages": (
        messages() | {"messages": "Hi"},
        r"chats\.jsonl:2: messages: found 'Hi', not JSON",
    ),
    "no messages": ({"id": 7}, r"chats\.jsonl:2: data\.columns: there is no column 'messages'; the row has: id"),
}


@pytest.mark.parametrize("name", BAD_CHATS)
def test_bad_chats_are_refused_with_their_line_and_nothing_is_written(
    prepare_run: Callable[..., StageRun], text: dict[str, Any], write_jsonl: Callable[..., Path], name: str
) -> None:
    row, expected = BAD_CHATS[name]
    path = write_jsonl("chats.jsonl", CHAT, row, CHAT)
    run = prepare_run(text, {"name": "chats", "kind": "chat", "path": str(path)})
    with pytest.raises(DataError, match=expected):
        stage.prepare(run)
    assert entries(run) == []
    assert sorted(path.name for path in run.folder.iterdir()) == ["run.yaml"]


def test_a_text_shorter_than_a_row_is_refused_and_nothing_is_written(
    prepare_run: Callable[..., StageRun], text: dict[str, Any]
) -> None:
    run = prepare_run(text, seq_len=len(TEXT) - 10)
    with pytest.raises(DataError, match=r"corpus holds \d+ tokens, too few for one row"):
        stage.prepare(run)
    assert entries(run) == []


@pytest.mark.parametrize(("source", "kilobytes"), [("file", 20), ("stdlib", 10), ("file", 200)])
def test_a_full_disk_is_said_and_leaves_nothing_that_counts(
    prepare_run: Callable[..., StageRun], tmp_path: Path, source: str, kilobytes: int
) -> None:
    # No file may grow beyond so much: in turn the reader's cache, the tokenizer's file and the tokens' are too large.
    letters = np.random.default_rng(0).integers(97, 123, (20_000, 7), dtype=np.uint8)
    letters[:, -1] = 32
    (tmp_path / "corpus.txt").write_bytes(letters.tobytes())
    data = {"path": str(tmp_path / "corpus.txt")} if source == "file" else {"source": "stdlib", "limit": 9}
    run = prepare_run(data)
    limit = (kilobytes << 10, kilobytes << 10)
    done = subprocess.run(
        [*COMMAND, str(run.folder / "run.yaml")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert entries(run) == []
    assert sorted(path.name for path in run.folder.iterdir()) == ["error.json", "run.yaml"]
    message = json.loads((run.folder / "error.json").read_text())["message"]
    assert message.startswith(f"there is no room for the prepared data in {tmp_path / 'runs'}: ")
    assert "File too large" in message


def test_a_text_that_disappeared_ends_the_process_with_2_and_one_message(
    prepare_run: Callable[..., StageRun], text: dict[str, Any]
) -> None:
    run = prepare_run(text)
    Path(text["path"]).write_text("")
    done = subprocess.run([*COMMAND, str(run.folder / "run.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "corpus.txt is empty" in done.stderr
    assert "Traceback" not in done.stderr
    error = json.loads((run.folder / "error.json").read_text())
    assert (error["type"], error["exit_code"]) == ("DataError", 2)
    assert error["message"] == done.stderr.strip()
    assert entries(run) == []


def test_evaluation_items_need_no_tokenizer_and_rows_do(
    prepare_run: Callable[..., StageRun], text: dict[str, Any]
) -> None:
    evals = {"name": "items", "kind": "evals", "source": "stdlib_evals"}
    run = prepare_run(evals, train_on=text)
    run.config["tokenizer"] = None
    result = stage.prepare(run)
    assert result.tokenizer is None
    assert [facts["items"]["kind"] for facts in result.datasets.values()] == [200]
    run = prepare_run(text)
    run.config["tokenizer"] = None
    with pytest.raises(DataError, match="corpus needs a tokenizer"):
        stage.prepare(run)


def test_one_folder_for_two_row_lengths_is_made_once(
    prepare_run: Callable[..., StageRun], text: dict[str, Any]
) -> None:
    run = prepare_run(text, text)
    run.config["datasets"][1]["seq_len"] = 64
    result = stage.prepare(run)
    assert len(result.datasets) == 1
    assert len(entries(run)) == 2


def start(run: StageRun) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, str(run.folder / "run.yaml")], stderr=subprocess.DEVNULL)


def wait_for_staging(run: StageRun, process: subprocess.Popen[bytes]) -> None:
    def stages():
        assert process.poll() is None, "it was done before it could be killed"
        return any(name.startswith(".corpus-") for name in entries(run))

    wait_for(stages, "the folder that it writes first")


@pytest.fixture
def long_text(tmp_path: Path) -> dict[str, Any]:
    rows = (json.dumps({"text": f"{number} {TEXT}"}) + "\n" for number in range(8000))
    (tmp_path / "corpus.jsonl").write_text("".join(rows))
    return {"name": "corpus", "path": str(tmp_path / "corpus.jsonl")}


def test_a_kill_leaves_nothing_that_counts_and_the_next_run_cleans_up(
    prepare_run: Callable[..., StageRun], long_text: dict[str, Any], text: dict[str, Any]
) -> None:
    run = prepare_run(long_text, train_on=text)
    process = start(run)
    wait_for_staging(run, process)
    process.kill()
    process.wait()
    assert [name for name in entries(run) if name.startswith("corpus-")] == []
    stage.prepare(run)
    assert [name for name in entries(run) if name.startswith(".")] == []
    assert read_info(run.config["datasets"][0]["folder"]).documents == 8000


@pytest.mark.parametrize("processes", [1, 2])
def test_a_sigterm_removes_what_is_half_written_and_every_process(
    prepare_run: Callable[..., StageRun], long_text: dict[str, Any], text: dict[str, Any], processes: int
) -> None:
    run = prepare_run(long_text, train_on=text, num_proc=processes)
    process = start(run)
    wait_for_staging(run, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []
    assert entries(run) == []
    # Finished parts stay, for the next run.
    assert {path.name for path in run.folder.iterdir()} <= {"run.yaml", "parts"}


def test_two_runs_at_once_do_not_collide(prepare_run: Callable[..., StageRun], text: dict[str, Any]) -> None:
    first = prepare_run(text)
    second = first.model_copy(update={"folder": first.folder.with_name("prepare-2")})
    second.folder.mkdir()
    second.write()
    processes = [start(run) for run in (first, second)]
    assert [process.wait() for process in processes] == [0, 0]
    results = [read_result(run.folder).model_dump(exclude={"seconds"}) for run in (first, second)]
    assert results[0] == results[1]
    assert len(entries(first)) == 2


def test_a_run_waits_for_another_that_prepares_the_same_and_makes_nothing_twice(
    prepare_run: Callable[..., StageRun], text: dict[str, Any]
) -> None:
    first = prepare_run(text)
    second = first.model_copy(update={"folder": first.folder.with_name("prepare-2")})
    second.folder.mkdir()
    second.write()
    name = Path(first.config["datasets"][0]["folder"]).name
    lock = Path(first.config["workspace"]) / PREPARING_FILE
    with in_turn(lock, [name], lambda _: None):
        command = [*COMMAND, str(second.folder / "run.yaml")]
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert waiting.stderr is not None
        assert next(waiting.stderr) == f"{name} is being prepared by another run: waits for it\n"
        assert entries(first) == []
        stage.prepare(first)
    said = waiting.stderr.read()
    waiting.stderr.close()
    assert waiting.wait() == 0
    # Each folder's making is told with its seconds.
    assert " s)" not in said
    assert len(entries(first)) == 2
    assert not lock.exists()
