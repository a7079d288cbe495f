import json
import shutil
from pathlib import Path

import pytest
from finished_run import FinishedRun
from local_hub import LocalHub

from titanflow.common.errors import DataError
from titanflow.publish.integrity import SEAL, Check, check_folder, check_tree, read_sealed, seal
from titanflow.publish.publish import publish
from titanflow.runs.results import write_result


@pytest.fixture
def published(finished: FinishedRun) -> Path:
    """What a run published, with the run's own record beside it."""
    run = finished.to_publish()
    result = publish(run)
    write_result(run.folder, result)
    return Path(result.location)


def failures(folder: Path) -> list[Check]:
    return [check for check in check_folder(folder)[0] if not check.passed]


def test_what_was_published_passes(published: Path) -> None:
    checks, content = check_folder(published)
    assert [check.name for check in checks if check.passed] == ["titanflow.json", "files", "result.json"]
    assert failures(published) == []
    assert set(content["files"]) == {path.name for path in published.iterdir()} - {"titanflow.json"}


@pytest.mark.parametrize("alone", [False, True])
def test_a_byte_that_changed_is_found_in_every_file(published: Path, tmp_path: Path, alone: bool) -> None:
    folder = published
    if alone:
        folder = shutil.copytree(published, tmp_path / "elsewhere")
    tried = 0
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for place in {*range(0, len(data), 1 + len(data) // 40), len(data) - 1}:
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            assert path.name in " ".join(f"{check.name} {check.found}" for check in failures(folder)), (path, place)
            tried += 1
        path.write_bytes(data)
    assert failures(folder) == []
    assert tried > 150


def test_a_file_that_is_missing_or_too_many(published: Path) -> None:
    (published / "tokenizer.json").unlink()
    (published / "adapter_config.json").write_text("{}")
    (published / "model.py").symlink_to("/etc/hostname")
    (published / "below").mkdir()
    (published / "below" / "pytorch_model.bin").write_bytes(b"a pickle")
    found = {check.name: check.found for check in failures(published) if check.name != "result.json"}
    assert found.pop("tokenizer.json") == "is missing"
    assert set(found) == {"adapter_config.json", "model.py", "below/pytorch_model.bin"}
    assert all("was not published" in text for text in found.values())


def test_what_a_client_or_git_puts_beside_it_is_let_be(published: Path) -> None:
    (published / ".gitattributes").write_text("*.safetensors filter=lfs")
    for name in (".git/config", ".cache/huggingface/download/x.lock"):
        (published / name).parent.mkdir(parents=True)
        (published / name).write_text("")
    assert failures(published) == []


def test_a_list_that_was_written_anew_is_not_the_runs(published: Path) -> None:
    (published / "config.json").write_text("{}")
    content = read_sealed((published / "titanflow.json").read_bytes())
    assert content is not None
    content["files"]["config.json"] = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    (published / "titanflow.json").write_bytes(seal(content))
    (found,) = failures(published)
    assert (found.name, found.found) == ("result.json", "the run published other bytes of config.json, titanflow.json")


def test_a_run_that_was_held_back_since_has_no_say(published: Path) -> None:
    result = published.parent / "result.json"
    result.write_text(json.dumps({**json.loads(result.read_text()), "status": "held back", "files": {}}))
    assert [check.name for check in check_folder(published)[0]] == ["titanflow.json", "files"]


def test_a_folder_that_no_publish_wrote(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no titanflow\.json"):
        check_folder(tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"sha256": 1}', b"\xff", seal({"a": 1}).replace(b"1", b"2", 1)])
def test_a_record_that_is_not_as_it_was_written(data: bytes) -> None:
    assert read_sealed(data) is None


def test_what_is_sealed_is_read_back(published: Path) -> None:
    content = {"a": [1.5, None, "ä"], "files": {}}
    data = seal(content)
    assert read_sealed(data) == content
    assert list(json.loads(data)) == ["a", "files", SEAL]


def test_the_hubs_own_hashes(finished: FinishedRun, hub: LocalHub, published: Path) -> None:
    from huggingface_hub import HfApi

    from titanflow.publish.hub.repository import Repository
    from titanflow.publish.hub.retry import Caller

    pushed = publish(finished.to_publish(target="hub", repo_id="local/it"))
    tree = Repository(HfApi(endpoint=hub.url, token=hub.token), "local/it", Caller("local/it", hub.token)).tree("run-7")
    folder = shutil.copytree(published, published.parent / "downloaded")
    for name in pushed.files:
        (folder / name).write_bytes(hub.repos["local/it"].files("run-7")[name])
    assert check_tree(folder, tree).passed
    (folder / "model.safetensors").write_bytes(b"\x08")
    assert check_tree(folder, tree) == Check("the Hub's hashes", False, "model.safetensors")
