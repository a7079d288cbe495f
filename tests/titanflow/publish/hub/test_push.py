import re
from pathlib import Path

import pytest
from finished_run import REPO
from huggingface_hub import HfApi
from local_hub import Blob, LocalHub
from pushing import Push, local, pushes, sent

from titanflow.common.errors import HubError
from titanflow.publish.bundle import Entry
from titanflow.publish.hub import push as pushing_module
from titanflow.publish.hub.push import Pushed, push
from titanflow.publish.hub.repository import Release, Repository
from titanflow.publish.hub.retry import Caller, Retry

pytestmark = pytest.mark.slow

COMMIT = "POST .*/commit/"


def test_one_commit_and_one_tag(hub: LocalHub, publish: Push, bundle: dict[str, Entry]) -> None:
    pushed = publish()
    assert sent(hub) == local(bundle)
    assert pushes(hub) == 1
    assert hub.repos[REPO].tags == {"run-7": pushed.commit}
    assert pushed == Pushed(hub.repos[REPO].branches["main"], "run-7", new=True)
    assert hub.repos[REPO].private
    assert hub.repos[REPO].at("main").files["model.safetensors"].lfs


def test_the_same_again_writes_nothing(hub: LocalHub, publish: Push) -> None:
    first = publish()
    before = len(hub.log)
    assert publish() == Pushed(first.commit, "run-7", new=False)
    assert pushes(hub) == 1
    assert not [line for line in hub.log[before:] if re.search("POST .*(commit|tag|preupload)|PUT", line)]


def test_the_same_files_under_another_tag_need_no_commit(hub: LocalHub, publish: Push) -> None:
    first = publish()
    assert publish(tag="best/of-all").commit == first.commit
    assert pushes(hub) == 1
    assert hub.repos[REPO].tags == {"run-7": first.commit, "best/of-all": first.commit}


def test_a_tag_that_holds_something_else_is_refused_before_anything_is_written(hub: LocalHub, publish: Push) -> None:
    publish()
    with pytest.raises(HubError, match=r"tag run-7 .* holds something else: config\.json") as caught:
        publish(config__json=b"{}")
    assert "Set `tag`" in str(caught.value)
    assert pushes(hub) == 1


def test_stale_files_are_deleted_and_the_hub_s_own_kept(hub: LocalHub, publish: Push, bundle: object) -> None:
    publish(**{"model-00002-of-00002__safetensors": b"an older run's shard"})
    assert "model-00002-of-00002.safetensors" in sent(hub)
    publish(tag="run-8")
    assert "model-00002-of-00002.safetensors" not in sent(hub)
    assert "model-00002-of-00002.safetensors" in sent(hub, "run-7")
    assert ".gitattributes" in hub.repos[REPO].files()
    assert pushes(hub) == 2


def test_another_branch_is_made(hub: LocalHub, publish: Push, bundle: dict[str, Entry]) -> None:
    publish(branch="exp/a")
    assert sent(hub, "exp/a") == local(bundle)
    assert not sent(hub, "main")


def test_a_private_model_never_goes_to_a_public_repository(hub: LocalHub, publish: Push) -> None:
    publish(private=False)
    with pytest.raises(HubError, match="is public and the config says `private: true`"):
        publish(tag="run-8", config__json=b"{}")
    assert pushes(hub) == 1


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "Set HF_TOKEN to a valid token"),
        (403, "no write access to local/stdlib-sft"),
        (404, "check the spelling of `repo_id`"),
        (409, "choose another `repo_id` or `tag`"),
    ],
)
@pytest.mark.parametrize("request_", ["POST .*/commit/", "GET .*/refs", "POST .*/tag/", "POST .*/preupload/"])
def test_a_final_answer_is_explained_at_once(
    hub: LocalHub, publish: Push, waits: list[float], status: int, says: str, request_: str
) -> None:
    hub.fail(request_, status)
    with pytest.raises(HubError, match=says) as caught:
        publish()
    assert f"the Hub answered {status} (planted {status})" in str(caught.value)
    assert hub.token not in str(caught.value)
    assert hub.requests(request_) == 1
    assert waits == []
    assert "run-7" not in hub.repos[REPO].tags
    assert pushes(hub) == (1 if "tag" in request_ else 0)


@pytest.mark.parametrize("status", [401, 403])
def test_a_repository_that_may_not_be_made(hub: LocalHub, publish: Push, status: int) -> None:
    hub.fail("POST /api/repos/create", status)
    with pytest.raises(HubError, match=f"Couldn't create {REPO}: the Hub answered {status}"):
        publish()
    assert hub.repos == {}


def test_a_wrong_token(hub: LocalHub, tmp_path: Path) -> None:
    repository = Repository(HfApi(endpoint=hub.url, token="wrongtoken"), REPO, Caller(REPO, "wrongtoken"))
    with pytest.raises(HubError, match="the Hub answered 401") as caught:
        push(Release({}, "main", "", True, tmp_path, "t"), repository)
    assert "wrongtoken" not in str(caught.value)


def test_a_token_that_may_only_read(hub: LocalHub, publish: Push, tmp_path: Path) -> None:
    publish()
    reader = Repository(HfApi(endpoint=hub.url, token=hub.read_token), REPO, Caller(REPO, hub.read_token))
    with pytest.raises(HubError, match=r"answered 403 .* The token has no write access to local/stdlib-sft: give it"):
        push(Release({}, "main", "a run", True, tmp_path / "downloaded", "t"), reader)
    assert pushes(hub) == 1


@pytest.mark.parametrize(
    "request_", ["repos/create", "/refs", "GET .*/revision/", "validate-yaml", "/commit/", "/tag/"]
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_again(
    hub: LocalHub, publish: Push, waits: list[float], bundle: dict[str, Entry], request_: str, status: int
) -> None:
    hub.fail(request_, status, times=2)
    pushed = publish()
    assert waits == [1.0, 2.0]
    assert sent(hub) == local(bundle)
    assert pushes(hub) == 1
    assert hub.repos[REPO].tags == {"run-7": pushed.commit}


def test_a_wait_that_the_hub_asks_for_is_kept(hub: LocalHub, publish: Push, waits: list[float]) -> None:
    hub.fail(COMMIT, 429, times=1, Retry_After="17")
    publish()
    assert waits == [17.0]


def test_a_wait_of_hours_is_not(hub: LocalHub, publish: Push, waits: list[float]) -> None:
    hub.fail(COMMIT, 429, times=9, Retry_After="7200")
    with pytest.raises(HubError, match="wait a few minutes"):
        publish()
    assert waits == []


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_stays_busy(hub: LocalHub, publish: Push, waits: list[float], status: int) -> None:
    hub.fail(COMMIT, status, times=99)
    with pytest.raises(HubError, match=rf"answered {status} .* after 4 attempts\. .*[Rr]un this stage again"):
        publish()
    assert waits == [1.0, 2.0, 4.0]
    assert pushes(hub) == 0


@pytest.mark.parametrize(
    ("request_", "times"), [("GET .*/tree/", 2), ("/preupload/", 2), ("/preupload/", 7), ("PUT /lfs/", 7)]
)
def test_requests_that_the_client_repeats_itself(
    hub: LocalHub, publish: Push, bundle: dict[str, Entry], request_: str, times: int
) -> None:
    """The client gives up after 6 tries; then it is our turn."""
    hub.fail(request_, 503, times=times)
    publish()
    assert sent(hub) == local(bundle)
    assert pushes(hub) == 1


@pytest.mark.parametrize("request_", ["repos/create", "GET .*/refs", "/commit/", "/tag/"])
def test_a_lost_answer_is_not_done_twice(
    hub: LocalHub, publish: Push, waits: list[float], bundle: dict[str, Entry], request_: str
) -> None:
    hub.drop(request_)
    pushed = publish()
    assert waits == [1.0]
    assert pushes(hub) == 1
    assert hub.requests("POST .*/commit/") == 1
    assert hub.requests("POST .*/tag/") == 1
    assert hub.repos[REPO].tags == {"run-7": pushed.commit}
    assert sent(hub) == local(bundle)


def test_a_push_that_died_after_its_commit_goes_on(hub: LocalHub, publish: Push) -> None:
    hub.fail("POST .*/tag/", 403)
    with pytest.raises(HubError):
        publish()
    pushed = publish()
    assert pushes(hub) == 1
    assert hub.repos[REPO].tags == {"run-7": pushed.commit}


def test_someone_else_s_commit_in_between_is_built_upon(hub: LocalHub, publish: Push, bundle: dict[str, Entry]) -> None:
    def interfere() -> None:
        repo = hub.repos[REPO]
        repo.commit("main", "theirs", repo.at("main").files | {"pytorch_model.bin": Blob(b"theirs")})

    hub.before(COMMIT, interfere)
    pushed = publish()
    titles = [commit.title for commit in hub.repos[REPO].commits]
    assert titles == ["initial commit", "theirs", "a run"]
    assert sent(hub, pushed.commit) == local(bundle)


def test_a_branch_that_never_rests(hub: LocalHub, publish: Push) -> None:
    hub.fail(COMMIT, 412, times=99)
    with pytest.raises(HubError, match=r"after 4 attempts\. The branch kept moving"):
        publish()
    assert hub.requests(COMMIT) == 4
    assert hub.repos[REPO].tags == {}


def test_bytes_that_arrive_otherwise_are_not_tagged(hub: LocalHub, publish: Push) -> None:
    def corrupt() -> None:
        hub.lfs.update({oid: data[::-1] for oid, data in hub.lfs.items()})

    hub.before(COMMIT, corrupt)
    with pytest.raises(HubError, match=r"doesn't hold what was sent: model\.safetensors"):
        publish()
    assert hub.repos[REPO].tags == {}


def test_a_tag_set_by_someone_else_meanwhile(hub: LocalHub, publish: Push) -> None:
    def interfere() -> None:
        hub.repos[REPO].tags["run-7"] = hub.repos[REPO].commits[0].oid

    hub.before(COMMIT, interfere)
    with pytest.raises(HubError, match=r"tag run-7 .* points at"):
        publish()


def test_bytes_that_come_back_otherwise_are_not_tagged(hub: LocalHub, publish: Push, bundle: dict[str, Entry]) -> None:
    hub.handed_out["model.safetensors"] = local(bundle)["model.safetensors"][::-1]
    with pytest.raises(HubError, match=r"other bytes than were sent: model\.safetensors\. It was not tagged"):
        publish()
    assert hub.repos[REPO].tags == {}
    hub.handed_out.clear()
    pushed = publish()
    assert pushes(hub) == 1
    assert hub.repos[REPO].tags == {"run-7": pushed.commit}


def test_a_file_that_comes_back_too_short_is_asked_for_again(
    hub: LocalHub, publish: Push, bundle: dict[str, Entry], waits: list[float]
) -> None:
    hub.handed_out["model.safetensors"] = local(bundle)["model.safetensors"][:-1]
    with pytest.raises(HubError, match=r"Couldn't download .*: Consistency check failed.* after 4 attempts"):
        publish()
    assert len(waits) == 3
    assert hub.repos[REPO].tags == {}


def test_a_model_that_says_something_else_is_not_tagged(
    hub: LocalHub, publish: Push, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []

    def wrong(folder: Path) -> str:
        folders.append((folder, sorted(path.name for path in folder.iterdir())))
        return "another continuation"

    monkeypatch.setattr(pushing_module, "wrong_continuation", wrong)
    with pytest.raises(HubError, match=r"fails its verification\. It was not tagged(?s:.*)another continuation"):
        publish()
    assert hub.repos[REPO].tags == {}
    assert pushes(hub) == 1
    assert folders == [(tmp_path / "downloaded", sorted(sent(hub)))]
    assert not (tmp_path / "downloaded").exists()


def test_a_card_that_the_hub_refuses(hub: LocalHub, publish: Push) -> None:
    with pytest.raises(HubError, match=r"doesn't take the front matter of README\.md"):
        publish(README__md=b"---\nlicense: [\n---\n")
    assert pushes(hub) == 0


def test_no_hub_at_all(waits: list[float], tmp_path: Path) -> None:
    api = HfApi(endpoint="http://127.0.0.1:9", token="hf_unreachabletoken")
    caller = Caller(REPO, "hf_unreachabletoken", Retry(attempts=2, sleep=waits.append))
    with pytest.raises(HubError, match=r"after 2 attempts\. Run this stage again when the Hub is back"):
        push(Release({}, "main", "", True, tmp_path, "t"), Repository(api, REPO, caller))
    assert waits == [1.0]
