from huggingface_hub.hf_api import RepoFile

from titanflow.publish.bundle import Difference, bytes_entry, difference, same

DATA = b"some bytes"
ENTRY = bytes_entry(DATA)
LFS = {"oid": ENTRY.sha256, "size": len(DATA), "pointerSize": 130}


def remote(path: str = "x", oid: str = "", **more: object) -> RepoFile:
    return RepoFile(path=path, size=len(DATA), oid=oid, **more)


def test_a_small_file_is_known_by_git_s_hash_and_a_large_one_by_its_sha256() -> None:
    assert same(ENTRY, remote(oid=ENTRY.blob_sha1))
    assert not same(ENTRY, remote(oid=ENTRY.sha256))
    assert same(ENTRY, remote(oid="the pointer's", lfs=LFS))
    assert not same(ENTRY, remote(oid=ENTRY.blob_sha1, lfs=LFS | {"oid": "0" * 64}))


def test_difference() -> None:
    bundle = {"same": ENTRY, "changed": ENTRY, "new": ENTRY}
    tree = {
        "same": remote("same", ENTRY.blob_sha1),
        "changed": remote("changed", "0" * 40),
        "sub/old.bin": remote("sub/old.bin"),
        ".gitattributes": remote(".gitattributes"),
    }
    found = difference(bundle, tree)
    assert found == Difference(added=("changed", "new"), deleted=("sub/old.bin",))
    assert str(found) == "changed, new, sub/old.bin (not in the export)"
    assert not difference({"same": ENTRY}, {"same": tree["same"]})
