import pytest

from titanflow.common.hub_names import is_ref, is_repo_id


@pytest.mark.parametrize("name", ["a/b", "my-org/Model_1.5", "1/2", "o/_x", "a/" + "b" * 94])
def test_a_repository(name: str) -> None:
    from huggingface_hub.utils import validate_repo_id

    assert is_repo_id(name)
    validate_repo_id(name)


@pytest.mark.parametrize(
    "name",
    ["name-alone", "a/b/c", "a/../b", "../b", "a/b\n", "a/b--c", "a/b..c", "a/.b", "a/b.", "-a/b", "a/b-", "a/b.git",
     "a/b c", "a\\b", "/a/b", "a/", "a/bé", "a/" + "b" * 95, "https://huggingface.co/a/b"],
)  # fmt: skip
def test_no_repository(name: str) -> None:
    assert not is_repo_id(name)


@pytest.mark.parametrize(
    "name", ["main", "v1.0", "20261121", "best/of-all", "run_7+cpu", "a" * 40 + "b", "deadbee", "a" * 200]
)
def test_a_tag_or_branch(name: str) -> None:
    assert is_ref(name)


@pytest.mark.parametrize(
    "name",
    ["", "my tag", "v1..2", "a//b", "/a", "a/", ".a", "a/.b", "a.", "a/b.lock", "a.lock/b", "-a", "a~1", "a^", "a:b",
     "a@{1}", "a\\b", "a\n", "HEAD", "refs/heads/main", "refs/pr/1", "0123456789" * 4, "é", "a" * 201],
)  # fmt: skip
def test_no_tag_or_branch(name: str) -> None:
    assert not is_ref(name)
