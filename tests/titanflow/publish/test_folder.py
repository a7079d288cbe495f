import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from titanflow.common.errors import ConfigError, StageFailed
from titanflow.common.staging import staging_prefix
from titanflow.publish import folder as hub_folder
from titanflow.publish.bundle import Difference, Entry, bytes_entry, from_export
from titanflow.publish.folder import preview_folder, write_folder


def bundle_of(export: Path) -> dict[str, Entry]:
    return from_export(export) | {"titanflow.json": bytes_entry(b"{}\n"), "README.md": bytes_entry(b"# it\n")}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_holds_the_bundle_and_nothing_else(export: Path, tmp_path: Path) -> None:
    bundle = bundle_of(export)
    assert write_folder(bundle, tmp_path / "deep" / "model")
    written = contents(tmp_path / "deep" / "model")
    assert written.keys() == bundle.keys()
    assert written["model.safetensors"] == (export / "model.safetensors").read_bytes()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]


def test_the_same_again_touches_nothing(export: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_folder(bundle_of(export), folder)
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert not write_folder(bundle_of(export), folder)
    assert {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()} == before


def test_what_a_killed_publish_left_is_removed(export: Path, tmp_path: Path) -> None:
    write_folder(bundle_of(export), tmp_path / "model")
    ended = subprocess.Popen(["true"])
    ended.wait()
    for process in (ended.pid, os.getpid()):
        (tmp_path / f"{staging_prefix(tmp_path / 'model')}{process}-model.new").mkdir()
    write_folder(bundle_of(export), tmp_path / "model")
    (left,) = tmp_path.glob(".model*")
    assert f".{os.getpid()}-" in left.name


def test_a_new_bundle_replaces_the_old_one_whole(export: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_folder(bundle_of(export) | {"model-00009-of-00009.safetensors": bytes_entry(b"old")}, folder)
    (export / "model.safetensors").write_bytes(b"new")
    assert write_folder(bundle_of(export), folder)
    assert contents(folder)["model.safetensors"] == b"new"
    assert "model-00009-of-00009.safetensors" not in contents(folder)
    assert not list(tmp_path.glob(".model*"))


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_new_bundle_takes_its_place_whole(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    folder = tmp_path / "model"
    write_folder(bundle_of(export), folder)
    (export / "model.safetensors").write_bytes(b"new")
    if exchanges:

        def no_rename(path: Path, target: Path) -> Path:
            raise AssertionError("for a moment there would be no folder")

        monkeypatch.setattr(Path, "rename", no_rename)
    else:
        monkeypatch.setattr(hub_folder, "exchange", lambda first, second: False)
    assert write_folder(bundle_of(export), folder)
    assert contents(folder)["model.safetensors"] == b"new"
    assert not list(tmp_path.glob(".model*"))


def test_without_an_exchange_the_old_folder_comes_back(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "model", Path.rename
    write_folder(bundle_of(export), folder)
    before = contents(folder)
    (export / "model.safetensors").write_bytes(b"new")

    def fails_once(path: Path, target: Path) -> Path:
        if path.name.endswith(".new"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(hub_folder, "exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OSError, match="Input/output"):
        write_folder(bundle_of(export), folder)
    assert contents(folder) == before
    assert not list(tmp_path.glob(".model*"))


@pytest.mark.parametrize("names", [["thesis.tex"], ["config.json"], ["titanflow.json", "notes.txt"]])
def test_a_folder_of_the_user_s_is_left_alone(export: Path, tmp_path: Path, names: list[str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("mine")
    with pytest.raises(ConfigError, match=names[-1]):
        write_folder(bundle_of(export), folder)
    assert contents(folder) == dict.fromkeys(names, b"mine")


def test_a_symlink_is_not_followed(export: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is not a folder"):
        write_folder(bundle_of(export), tmp_path / "model")


def test_others_may_read_what_was_exported_for_its_owner_only(export: Path, tmp_path: Path) -> None:
    (export / "model.safetensors").chmod(0o600)
    write_folder(bundle_of(export), tmp_path / "model")
    mode = (tmp_path / "model" / "model.safetensors").stat().st_mode
    assert stat.S_IMODE(mode) == stat.S_IMODE((tmp_path / "model" / "README.md").stat().st_mode)


def test_a_full_disk_leaves_the_old_folder(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    write_folder(bundle_of(export), folder)
    before = contents(folder)

    def full(source: Path, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    (export / "model.safetensors").write_bytes(b"new")
    bundle = bundle_of(export)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        write_folder(bundle, folder)
    assert contents(folder) == before
    assert not list(tmp_path.glob(".model*"))


def test_an_export_that_changes_while_it_is_copied_is_not_published(export: Path, tmp_path: Path) -> None:
    bundle = bundle_of(export)
    (export / "model.safetensors").write_bytes(b"changed after it was hashed")
    with pytest.raises(StageFailed, match="changed while it was copied"):
        write_folder(bundle, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_copy_that_says_something_else_replaces_nothing(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    write_folder(bundle_of(export), folder)
    (export / "model.safetensors").write_bytes(b"new")
    monkeypatch.setattr(hub_folder, "wrong_continuation", lambda copy: f"says something else ({copy.name})")
    with pytest.raises(StageFailed, match=r"(?s)nothing was published.*says something else \(\.model.*\)"):
        write_folder(bundle_of(export), folder)
    assert contents(folder)["model.safetensors"] != b"new"
    assert not list(tmp_path.glob(".model*"))


def test_a_preview_writes_nothing(export: Path, tmp_path: Path) -> None:
    folder, bundle = tmp_path / "model", bundle_of(export)
    assert preview_folder(bundle, folder) == Difference(tuple(bundle), ())
    assert not folder.exists()
    write_folder(bundle | {"model-00009-of-00009.safetensors": bytes_entry(b"old")}, folder)
    before = contents(folder)
    changed = bundle | {"config.json": bytes_entry(b"{}")}
    assert preview_folder(changed, folder) == Difference(("config.json",), ("model-00009-of-00009.safetensors",))
    assert contents(folder) == before
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"were not published: thesis\.tex"):
        preview_folder(bundle, folder)


def test_scores_for_the_hub_s_benchmarks_lie_in_a_folder_of_their_own(export: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    bundle = bundle_of(export) | {".eval_results/gsm8k.yaml": bytes_entry(b"[]\n")}
    assert write_folder(bundle, folder)
    assert (folder / ".eval_results" / "gsm8k.yaml").read_bytes() == b"[]\n"
    assert not write_folder(bundle, folder)
    (folder / ".eval_results" / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"\.eval_results/notes\.txt"):
        write_folder(bundle, folder)
