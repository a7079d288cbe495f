from pathlib import Path

import pytest
from finished_run import REPO, write_export
from local_hub import Blob, LocalHub

from titanflow.publish.bundle import LINEAGE, bytes_entry, from_export
from titanflow.publish.gate.published import Published, last_in_folder, last_on_hub
from titanflow.publish.gate.samples import Samples, TaskSamples
from titanflow.publish.hub.repository import Repository

RECORD = b'{"experiment": "stdlib", "run": "nightly"}'
SAMPLES = Samples(lm_eval="0.4.13", tasks={"kind": TaskSamples(keys=["a"])})


def published_folder(folder: Path) -> Path:
    write_export(folder)
    for unpublished in (".env", "optimizer.pt", "notes.safetensors", "link.txt"):
        (folder / unpublished).unlink()
    (folder / LINEAGE).write_bytes(RECORD)
    (folder / "titanflow_samples.json").write_bytes(SAMPLES.to_bytes())
    return folder


def test_a_folder_is_known_by_the_run_that_it_holds(tmp_path: Path) -> None:
    folder = published_folder(tmp_path / "model")
    exported = from_export(folder)
    found = last_in_folder(folder, exported)
    assert found == Published("stdlib/nightly", True, {"experiment": "stdlib", "run": "nightly"}, SAMPLES)
    (folder / LINEAGE).write_bytes(b"{}")
    assert last_in_folder(folder, exported) == Published("model", True, {}, SAMPLES)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_one_other_byte_is_another_model(tmp_path: Path, name: str) -> None:
    folder = published_folder(tmp_path / "model")
    exported = from_export(folder)
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(bytes(data))
    found = last_in_folder(folder, exported)
    assert found is not None
    assert not found.is_this


def test_where_nothing_was_published_there_is_no_last_one(tmp_path: Path, repository: Repository) -> None:
    assert last_in_folder(tmp_path / "none", {}) is None
    assert last_in_folder(tmp_path, {}) is None
    assert last_on_hub(repository, "main", "v1", {}) is None
    repository.create(private=True)
    assert last_on_hub(repository, "main", "v1", {}) is None


def test_on_a_hub_it_is_the_newest_tagged_commit(hub: LocalHub, repository: Repository) -> None:
    repository.create(private=True)
    repo = hub.repos[REPO]
    commits = [
        repo.commit("main", name, {LINEAGE: Blob(RECORD), "config.json": Blob(name.encode())}).oid
        for name in ("first", "second", "cut off")
    ]
    repo.tags |= {"v1": commits[0], "v2": commits[1]}
    exported = {"config.json": bytes_entry(b"second")}
    found = last_on_hub(repository, "main", "v3", exported)
    assert found == Published(commits[1], True, {"experiment": "stdlib", "run": "nightly"})
    assert last_on_hub(repository, "not/there/yet", "v3", exported) == found
    # Under a tag that exists it is what the tag holds.
    under_tag = last_on_hub(repository, "main", "v1", exported)
    assert under_tag is not None
    assert (under_tag.name, under_tag.is_this) == (commits[0], False)


def test_what_somebody_else_wrote_breaks_nothing() -> None:
    odd = {"stages": {"evaluate": {"scores": {"sft": {"kind": {"acc": "1", "f1": True}, "other": 3}}, "n_shot": []}}}
    for record in ({}, {"stages": []}, odd | {"evaluated_as": "sft", "gate": 3}):
        published = Published("c0ffee", record=record)
        assert published.gate is None
        assert published.as_json()["name"] == "c0ffee"


def test_its_scores_are_handed_on_as_its_own_record_has_them() -> None:
    scores = {"sft": {"kind": {"acc": 0.9, "acc_stderr": 0.01}}, "base": {"kind": {"acc": 0.5}}}
    evaluate = {"scores": scores, "task_versions": {"kind": "1.0"}, "n_shot": {"kind": 2}, "limit": None, "digests": {}}
    record = {"experiment": "stdlib", "run": "a", "model": "sft", "evaluated_as": "sft", "files": {}}
    handed_on = Published("c0ffee", record=record | {"stages": {"evaluate": evaluate, "sft": {}}}).as_json()
    assert handed_on == {
        "name": "c0ffee",
        "experiment": "stdlib",
        "run": "a",
        "model": "sft",
        "evaluated_as": "sft",
        "stages": {
            "evaluate": {
                "scores": {"sft": scores["sft"]},
                "task_versions": {"kind": "1.0"},
                "n_shot": {"kind": 2},
                "limit": None,
            }
        },
    }
