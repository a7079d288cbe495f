"""What a fixture of a whole module leaves in the environment isn't there in a test; one test's isn't in the next."""

import os

import pytest

LEFT = "LEFT_BY_A_STAGE"


@pytest.fixture(scope="module")
def stage_in_this_process() -> str:
    os.environ[LEFT] = "1"
    return os.environ[LEFT]


def test_a_fixture_of_the_module_leaves_nothing(stage_in_this_process: str) -> None:
    assert stage_in_this_process == "1"
    assert LEFT not in os.environ
    os.environ[LEFT] = "2"


def test_another_test_leaves_nothing(stage_in_this_process: str) -> None:
    assert stage_in_this_process == "1"
    assert LEFT not in os.environ
