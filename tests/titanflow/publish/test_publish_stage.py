import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from finished_run import FILES, REPO, FinishedRun
from local_hub import LocalHub

from titanflow.common.errors import ConfigError, DataError, HubError, StageFailed
from titanflow.publish import continuation
from titanflow.publish.publish import main, publish
from titanflow.publish.settings import read_settings
from titanflow.runs.contract import StageRun


def process(run: StageRun, **environment: str) -> subprocess.CompletedProcess[str]:
    """The stage as a task starts it; Xet is left for the stage to turn off."""
    run.write()
    inherited = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_XET"}
    command = [sys.executable, "-m", "titanflow.publish.publish", str(run.folder / "run.yaml")]
    return subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=False)


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def error_of(run: StageRun) -> dict[str, Any]:
    return json.loads((run.folder / "error.json").read_text())


def test_the_folder_equals_what_the_hub_gets(finished: FinishedRun, hub: LocalHub) -> None:
    pushed = publish(finished.to_publish(target="hub", repo_id=REPO))
    folder = publish(finished.to_publish(target="folder", repo_id=REPO))
    remote = hub.repos[REPO].files("run-7")
    remote.pop(".gitattributes")
    assert written(Path(folder.location)) == remote
    assert folder.files == pushed.files
    assert set(remote) == set(pushed.files)
    assert Path(folder.location) == finished.root / "publish" / "model"
    assert pushed.location == f"{hub.url}/{REPO}/tree/run-7"
    assert (pushed.repo_id, pushed.tag) == (REPO, "run-7")
    assert pushed.commit == hub.repos[REPO].tags["run-7"]


def test_the_same_run_again_changes_nothing(finished: FinishedRun, hub: LocalHub) -> None:
    run = finished.to_publish(target="hub", repo_id=REPO, tag="v1", commit_message="first")
    first, again = publish(run), publish(run)
    assert again.model_copy(update={"seconds": first.seconds}) == first
    assert [commit.title for commit in hub.repos[REPO].commits] == ["initial commit", "first"]


@pytest.mark.parametrize("target", ["hub", "folder"])
@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_that_changed_after_the_evaluation_is_named(
    finished: FinishedRun, hub: LocalHub, name: str, target: str
) -> None:
    """Weights that were trained on, a swapped tokenizer, another template."""
    path = finished.export / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    with pytest.raises(DataError, match=rf"{re.escape(name)}: changed since it was evaluated") as caught:
        publish(finished.to_publish(target=target, repo_id=REPO))
    assert "evaluate this export again" in str(caught.value)
    assert hub.log == []
    assert not (finished.root / "publish").exists()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("special_tokens_map.json", b"{}", "was not there when the model was evaluated"),
        ("model-00002-of-00002.safetensors", b"more", "was not there when the model was evaluated"),
        ("chat_template.jinja", None, "was evaluated and is gone"),
        ("generation_config.json", None, "was evaluated and is gone"),
    ],
)
def test_a_file_that_came_or_went_after_the_evaluation_is_named(
    finished: FinishedRun, hub: LocalHub, name: str, data: bytes | None, says: str
) -> None:
    path = finished.export / name
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    with pytest.raises(DataError, match=rf"{re.escape(name)}: {says}"):
        publish(finished.to_publish(target="hub", repo_id=REPO))
    assert hub.log == []


@pytest.mark.parametrize("target", ["hub", "folder"])
def test_a_dry_run_writes_nothing(
    finished: FinishedRun, hub: LocalHub, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    result = publish(finished.to_publish(target=target, repo_id=REPO, dry_run=True))
    assert (result.status, result.commit) == ("dry run", "")
    assert "would write model.safetensors, 0.001 MB" in caplog.messages
    assert hub.repos == {}
    assert not (finished.root / "publish").exists()
    real = publish(finished.to_publish(target=target, repo_id=REPO))
    assert (real.location, real.files, real.status) == (result.location, result.files, "published")


def test_a_pull_request(finished: FinishedRun, hub: LocalHub) -> None:
    result = publish(finished.to_publish(target="hub", repo_id=REPO, pull_request=True))
    assert result.pull_request == result.location == f"{hub.url}/{REPO}/discussions/1"
    assert result.status == "proposed"
    assert (result.tag, result.commit) == ("", hub.repos[REPO].at("refs/pr/1").oid)
    assert hub.repos[REPO].tags == {}


@pytest.mark.parametrize("target", ["hub", "folder"])
def test_what_arrived_must_say_what_the_evaluated_model_said(
    finished: FinishedRun, hub: LocalHub, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy = {"prompt": [1, 2], "continuation": [3, 4]}
    finished.evaluate(greedy={"base": {"prompt": [0], "continuation": [0]}, "sft": greedy})
    run = finished.to_publish(target=target, repo_id=REPO)
    for status, says in ((1, "the model says [5]"), (0, "")):
        code = f"import json, sys; raise SystemExit({says!r} or (json.load(open(sys.argv[1] + '/titanflow.json'))"
        code += f"['greedy'] != {greedy}) or None)"
        monkeypatch.setattr(continuation, "VERIFY", (sys.executable, "-c", code))
        if status:
            with pytest.raises(StageFailed, match=r"fails its verification(?s:.*)the model says \[5\]"):
                publish(run)
            assert not any(repo.tags for repo in hub.repos.values())
            assert not (finished.root / "publish" / "model").exists()
        else:
            assert publish(run).status == "published"


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"limit": 40.0}, "evaluate.limit: only a part of each task"), ({"backend": "native"}, "evaluate.backend: ")],
)
def test_a_model_that_was_not_scored_whole_or_not_as_exported(
    finished: FinishedRun, changes: dict[str, Any], says: str
) -> None:
    finished.evaluate(**changes)
    with pytest.raises(ConfigError, match=says):
        publish(finished.to_publish())
    assert not (finished.root / "publish").exists()


def test_without_evaluation_it_is_published_all_the_same(finished: FinishedRun) -> None:
    del finished.stages["evaluate"]
    result = publish(finished.to_publish())
    assert b"published without an evaluation" in (Path(result.location) / "README.md").read_bytes()


@pytest.mark.parametrize(
    ("config", "key", "says"),
    [
        ({"target": "hub"}, "repo_id", "target: hub needs a repository"),
        ({"target": "hub", "repo_id": "name-alone"}, "repo_id", "no repository's name"),
        ({"target": "hub", "repo_id": "a/../b"}, "repo_id", "no repository's name"),
        ({"target": "hub", "repo_id": "a/b\n"}, "repo_id", "no repository's name"),
        ({"target": "hub", "repo_id": "a/b", "revision": "refs/heads/main"}, "revision", "can't be a branch's name"),
        ({"target": "hub", "repo_id": "a/b", "revision": "main; rm -rf"}, "revision", "can't be a branch's name"),
        ({"target": "hub", "repo_id": "a/b", "tag": "main"}, "tag", "is the branch's name, too"),
        ({"pull_request": True}, "pull_request", "a folder has no pull requests"),
        ({"target": "hub", "repo_id": "a/b", "tag": "my tag"}, "tag", "can't be a tag's name"),
        ({"target": "hub", "repo_id": "a/b", "tag": "v1..2"}, "tag", "can't be a tag's name"),
        ({"target": "bucket"}, "target", "found 'bucket'"),
        ({"private": "no"}, "private", "found 'no'"),
        ({"licence": "mit"}, "licence", "did you mean `publish.license`"),
    ],
)
def test_settings_that_cannot_be_used(finished: FinishedRun, config: dict[str, Any], key: str, says: str) -> None:
    run = finished.to_publish(**config)
    run.origins[key] = "publish.yaml:3"
    with pytest.raises(ConfigError, match=says) as caught:
        read_settings(run)
    assert f"publish.yaml:3: publish.{key}" in str(caught.value)


def test_a_run_that_is_called_like_the_branch_is_tagged_with_its_experiment(
    finished: FinishedRun, hub: LocalHub
) -> None:
    """The default experiment's run is called main, as the branch is."""
    run = finished.to_publish(target="hub", repo_id=REPO).model_copy(update={"run": "main"})
    result = publish(run)
    assert (result.tag, result.location) == ("stdlib-main", f"{hub.url}/{REPO}/tree/stdlib-main")
    assert result.commit == hub.repos[REPO].tags["stdlib-main"]


def test_a_token_in_an_answer_is_not_published(finished: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "opaque-token-value")
    finished.evaluate(examples=[{"task": "stdlib_kind", "question": "a?", "sft": "opaque-token-value"}])
    with pytest.raises(ConfigError, match=r"README\.md: would publish a token") as caught:
        publish(finished.to_publish())
    assert "opaque" not in str(caught.value)
    assert not (finished.root / "publish").exists()


def test_the_path_of_a_home_folder_is_not_published(finished: FinishedRun) -> None:
    finished.evaluate(examples=[{"task": "stdlib_kind", "question": "a?", "sft": f"{Path.home()}/data"}])
    with pytest.raises(ConfigError, match="path of your home folder"):
        publish(finished.to_publish())


def test_no_token_at_all(finished: FinishedRun, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(HubError, match="set HF_TOKEN"):
        publish(finished.to_publish(target="hub", repo_id=REPO))
    assert hub.log == []


def test_the_process_publishes_and_writes_its_result(finished: FinishedRun, hub: LocalHub) -> None:
    run = finished.to_publish(target="hub", repo_id=REPO)
    done = process(run)
    assert done.returncode == 0, done.stderr
    result = json.loads((run.folder / "result.json").read_text())
    assert result["commit"] == hub.repos[REPO].tags["run-7"]
    assert len(hub.repos[REPO].commits) == 2
    sent = hub.repos[REPO].files()
    assert not sent.keys() & {".env", "link.txt", "optimizer.pt", "notes.safetensors", "sharded/model.safetensors"}
    texts = [done.stdout, done.stderr, *(data.decode(errors="replace") for data in sent.values())]
    texts += [path.read_text() for path in run.folder.iterdir()]
    assert not [text for text in texts if hub.token in text or "averysecrettoken" in text]


def test_the_process_reports_a_refusal(finished: FinishedRun, hub: LocalHub) -> None:
    hub.fail("POST .*/commit/", 403)
    run = finished.to_publish(target="hub", repo_id=REPO)
    done = process(run)
    assert done.returncode == 1
    error = error_of(run)
    assert (error["type"], error["exit_code"]) == ("HubError", 1)
    assert "the Hub answered 403" in error["message"]
    assert error["message"] in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.token not in json.dumps(error) + done.stderr
    assert not (run.folder / "result.json").exists()


def test_the_process_reports_bad_input(finished: FinishedRun, hub: LocalHub) -> None:
    run = finished.to_publish(target="hub", repo_id=REPO)
    done = process(run, HF_ENDPOINT=hub.url.replace("//", "//me:s3cret@"))
    assert done.returncode == 2
    assert "holds a name or password" in done.stderr
    assert "s3cret" not in done.stderr + json.dumps(error_of(run))
    assert hub.log == []


def test_an_old_error_is_forgotten(finished: FinishedRun) -> None:
    run = finished.to_publish()
    path = run.write()
    (run.folder / "error.json").write_text("{}")
    assert main([str(path)]) == 0
    assert not (run.folder / "error.json").exists()


def test_a_run_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "run.yaml")]) == 2
    assert "usage" in capsys.readouterr().err


def test_nothing_of_this_imports_torch_or_prefect() -> None:
    code = (
        "import sys, titanflow.publish.publish, titanflow.publish.card.card, titanflow.publish.hub.push;"
        "print([name for name in ('torch', 'prefect', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
