"""A published model is verified in a process of its own, as a user and the publish stage do it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_storage import Blob
from local_hub import LocalHub
from tiny_exports import write_byte_tokenizer
from tiny_hub import REPO, talk_to, upload
from wrong_exports import edit_config, export_tiny

from titan.inference.greedy import continue_greedily
from titan.inference.verify import check_model, check_tag, main
from titan.weights.hf_folder import load_folder
from titanflow.common.digests import folder_digests
from titanflow.publish.integrity import seal
from titanflow.runs.results import Greedy

PROMPT = [72, 101, 108, 108, 111]


def write_record(folder: Path, **content: object) -> None:
    """Publishes the folder as it stands."""
    (folder / "titanflow.json").unlink(missing_ok=True)
    (folder / "titanflow.json").write_bytes(seal({**content, "files": folder_digests(folder)}))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    out = export_tiny(folder, "llama3", {}, write_byte_tokenizer(folder / "tokenizer")).folder
    (out / "README.md").write_text("# tiny\n")
    model, _ = load_folder(out)
    write_record(out, greedy=continue_greedily(model, PROMPT).model_dump())
    return out


@pytest.fixture
def copied(published: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published, tmp_path / "copied")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "titanflow.cli.main", "verify", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def failed(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The checks that don't pass, by name."""
    assert main([str(folder), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["passed"] is False
    return {check["name"]: check["found"] for check in printed["checks"] if not check["passed"]}


def test_a_published_folder_passes(published: Path) -> None:
    ended = run(str(published))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("✓") == 5
    assert "LlamaForCausalLM" in ended.stdout
    assert "the same 16 tokens" in ended.stdout


def test_a_changed_byte_of_the_weights_ends_it_before_anything_is_loaded(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("titan.inference.verify.check_model", lambda *arguments: pytest.fail("loaded"))
    path = copied / "model.safetensors"
    data = path.read_bytes()
    for place in (0, 9, len(data) // 3, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 64]) + data[place + 1 :])
        assert "changed: its SHA-256" in failed(copied, capsys)["model.safetensors"]


def test_another_model_under_a_list_of_its_own_says_something_else(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    greedy = json.loads((copied / "titanflow.json").read_text())["greedy"]
    edit_config(copied, rms_norm_eps=0.5)
    write_record(copied, greedy=greedy)
    assert "of the continuation is" in failed(copied, capsys)["generates"]


def test_a_weight_without_a_place_is_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_config(copied, num_hidden_layers=2)
    write_record(copied)
    assert "unexpected model.layers.2." in failed(copied, capsys)["loads"]


def test_foreign_code_is_not_run(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "modeling_mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    edit_config(copied, auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    write_record(copied)
    assert "brings code of its own (modeling_mine.py)" in failed(copied, capsys)["loads"]
    assert not (tmp_path / "ran").exists()


def test_without_a_recorded_continuation_it_still_generates(copied: Path) -> None:
    found = {check.name: check for check in check_model(copied, None)}
    assert all(check.passed for check in found.values())
    assert "none are recorded" in found["generates"].found


def test_the_first_token_of_a_tie_may_be_the_other(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = json.loads((copied / "titanflow.json").read_text())["greedy"]
    others = [token + 1 for token in greedy["continuation"]]
    said = Greedy(prompt=PROMPT, continuation=others)
    monkeypatch.setattr("titan.inference.greedy.continue_greedily", lambda *arguments: said)
    checks = {check.name: check for check in check_model(copied, greedy)}
    assert checks["generates"].found == "the same 16 tokens but for a tie at token 1"


def test_a_pipe_among_the_files_is_named_and_not_waited_for(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "generation_config.json").unlink()
    os.mkfifo(copied / "generation_config.json")
    os.mkfifo(copied / "added.json")
    found = failed(copied, capsys)
    assert "no regular file" in found["generation_config.json"]
    assert "was not published" in found["added.json"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no-such-folder"], "there is no folder no-such-folder"),
        (
            ["runs/modle"],
            "no folder runs/modle\n    expected: a folder, or owner/name on the Hub\n    did you mean runs/model?",
        ),
        (["runs/a/b/model"], "there is no folder runs/a/b/model"),
        (["a-file"], "a-file is a file"),
        (["a-file/model"], "there is no folder a-file/model"),
        (["a-pipe"], "a-pipe is a pipe"),
        (["a-pipe/model"], "there is no folder a-pipe/model"),
        (["/dev/null"], "/dev/null is a device"),
        (["a-loop"], "a-loop is a link that leads nowhere"),
        (["a-loop/model"], "there is no folder a-loop/model"),
        ([""], "the name is empty"),
        (["a" * 5000], "can't be read: File name too long"),
        (["local/tiny", "--revision", ""], "--revision: found ''"),
        (["local/tiny", "--revision", "../main"], "expected: a branch, a tag or a commit"),
        (["."], "no titanflow.json"),
        ([".", "--revision", "v1"], "a folder has no revisions"),
    ],
)
def test_bad_input_ends_with_2(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "model").mkdir(parents=True)
    (tmp_path / "a-file").touch()
    (tmp_path / "a-loop").symlink_to("a-loop")
    os.mkfifo(tmp_path / "a-pipe")
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_a_folder_without_rights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "closed" / "model").mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # whom no folder is closed to
            os.seteuid(65534)
        assert main([str(tmp_path / "closed" / "model")]) == 2
    finally:
        os.seteuid(user)
        (tmp_path / "closed").chmod(0o700)
    assert "model can't be read: Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        ({"files": None}, "titanflow.json", "lists no files"),
        ({"files": ["config.json"]}, "titanflow.json", "lists no files"),
        ({"greedy": "nothing"}, "generates", "titanflow.json records no continuation that can be compared"),
        ({"greedy": {"prompt": [], "continuation": []}}, "generates", "titanflow.json records no"),
        ({"greedy": {"prompt": [999_999_999], "continuation": [1]}}, "generates", "titanflow.json records no"),
    ],
)
def test_a_list_that_somebody_else_wrote(
    copied: Path, content: dict[str, object], name: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "titanflow.json").unlink()
    (copied / "titanflow.json").write_bytes(seal({"files": folder_digests(copied), **content}))
    assert failed(copied, capsys)[name].startswith(says)


def test_a_list_without_an_end_is_no_list(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "titanflow.json").write_text("[" * 100_000)
    assert "its own digest doesn't fit" in failed(copied, capsys)["titanflow.json"]


@pytest.fixture
def hub(published: Path) -> LocalHub:
    """A Hub that holds the model, tagged."""
    with LocalHub() as hub:
        upload(hub, published)
        yield hub


def test_a_repository_passes_and_neither_a_later_commit_nor_a_damaged_copy_does(hub: LocalHub, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")}
    ended = run(REPO, "--json", **environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    printed = json.loads(ended.stdout)
    assert printed["commit"] == hub.repos[REPO].tags["v1"]
    names = [check["name"] for check in printed["checks"]]
    assert names == ["commit", "the Hub's hashes", "titanflow.json", "files", "loads", "tokenizer", "generates"]

    repo = hub.repos[REPO]
    repo.commit("main", "a better card", {**repo.at("main").files, "README.md": Blob(b"# Tiny\n")})
    ended = run(REPO, **environment)
    assert ended.returncode == 1
    assert "no tag marks it as published; --revision verifies one of v1" in ended.stdout
    assert "README.md" in ended.stdout
    assert "generates" not in ended.stdout, "nothing is loaded of what isn't as it was"

    weights = next((tmp_path / "home").rglob("snapshots/*/model.safetensors"))
    data = weights.resolve().read_bytes()
    weights.resolve().write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    ended = run(REPO, "--revision", "v1", **environment)
    assert ended.returncode == 1
    assert "✗ model.safetensors" in ended.stdout, "the copy in the cache is damaged"


def test_a_changed_byte_on_the_hub_is_found_in_every_file(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("titan.inference.verify.check_model", lambda *arguments: pytest.fail("loaded"))
    talk_to(hub, monkeypatch, tmp_path)
    repo = hub.repos[REPO]
    files = repo.at("v1").files
    for name, blob in files.items():
        if name == ".gitattributes":
            continue
        middle = len(blob.data) // 2
        changed = Blob(blob.data[:middle] + bytes([blob.data[middle] ^ 1]) + blob.data[middle + 1 :], blob.lfs)
        # As somebody would who may write there: a commit with hashes of its own, and a tag.
        repo.tags["v2"] = repo.commit("main", name, {**files, name: changed}).oid
        assert main([REPO]) == 1, name
        assert f"✗ {name}" in capsys.readouterr().out


def test_a_repository_that_titanflow_did_not_write(hub: LocalHub, tmp_path: Path) -> None:
    repo = hub.repos[REPO]
    repo.commit("main", "a copy", {"config.json": repo.at("main").files["config.json"]})
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")}
    ended = run(REPO, **environment)
    assert ended.returncode == 2
    assert "no titanflow.json at main" in ended.stderr


def test_a_name_that_neither_a_folder_nor_the_hub_has(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk_to(hub, monkeypatch, tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    assert main(["local/nothing"]) == 1
    assert f"There is no folder local/nothing here, and as a repository of {hub.url}: Could" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("token", "gated", "says"),
    [
        ("hf_of_nobody_at_all", False, "Set HF_TOKEN to a valid token that may read local/tiny"),
        ("read", True, "where it is gated, ask for access on its page"),
    ],
)
def test_who_reads_is_told_what_reading_needs(
    hub: LocalHub, tmp_path: Path, token: str, gated: bool, says: str
) -> None:
    hub.repos[REPO].gated = gated
    token = hub.read_token if token == "read" else token
    ended = run(REPO, HF_ENDPOINT=hub.url, HF_TOKEN=token, HF_HOME=str(tmp_path / "home"))
    assert (ended.returncode, says in ended.stderr) == (1, True), ended.stderr
    assert "write access" not in ended.stderr
    assert token not in ended.stderr


def test_a_revision_that_was_asked_for_needs_no_tag() -> None:
    assert check_tag("abc", {}, "refs/pr/1").found == "abc, not tagged"
    assert check_tag("abc", {"v1": "abc", "v2": "abc"}, None).found == "abc, tag v1, v2"
    assert not check_tag("abc", {}, None).passed
