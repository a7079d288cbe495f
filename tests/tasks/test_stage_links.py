import json

from tasks.ui.results import links
from titanflow.runs.results import PublishResult


def test_only_what_a_browser_opens_is_linked(tmp_path):
    pushed = PublishResult(
        target="hub", repo_id="a/b", tag="v1", location="https://hub/a/b/tree/v1", pull_request="https://hub/pr/1"
    )
    (tmp_path / "wandb.json").write_text(json.dumps({"id": "1", "url": "https://wandb.example/runs/1"}))
    assert links(tmp_path, pushed) == {
        "wandb": ("W&B run", "https://wandb.example/runs/1"),
        "published": ("Published: a/b v1", "https://hub/a/b/tree/v1"),
        "pull-request": ("Pull request", "https://hub/pr/1"),
    }
    for status in ("proposed", "held back", "dry run"):
        assert "published" not in links(tmp_path, pushed.model_copy(update={"status": status}))
    (tmp_path / "wandb.json").write_text(json.dumps({"id": "1", "mode": "offline", "url": ""}))
    assert links(tmp_path, PublishResult(target="folder", location="/runs/model")) == {}


def test_a_record_that_is_torn_or_missing_links_nothing(tmp_path):
    folder = PublishResult(target="folder", location="/runs/model")
    assert links(tmp_path, folder) == {}
    (tmp_path / "wandb.json").write_text('{"url": "https')
    assert links(tmp_path, folder) == {}
