"""The image, built and run for real: ``make image-test``."""

from collections.abc import Iterator
from pathlib import Path

import built_image
import pytest
from built_image import Builder

pytestmark = pytest.mark.image
SHORT = ("--set", "pretrain.training.steps=20", "--set", "sft.training.steps=20", "--set", "evaluate.limit=5")


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """The builder that has built the image."""
    if reason := built_image.why_not():
        pytest.skip(reason)
    builder = Builder(tmp_path_factory.mktemp("image"))
    builder.base()
    builder.build("--build-arg", "REVISION=c0ffee", *torch_index(request))
    yield builder
    builder("rmi", "--all", "--force")


def torch_index(request: pytest.FixtureRequest) -> list[str]:
    return ["--build-arg", f"TORCH_INDEX={request.config.getoption('--image')}"]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder that any user may write to, as a claim or a mount is."""
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    return tmp_path


@pytest.mark.parametrize("user", ["1000:1000", "1000660000:0", "4242:4242"], ids=["own", "of OpenShift", "any"])
def test_it_plans_as_any_user(image: Builder, workspace: Path, user: str) -> None:
    said = image.run(["sh", "-c", "id -u; tini -- titanflow plan stdlib"], user, workspace)
    first, _, plan = said.partition("\n")
    assert first == user.partition(":")[0]
    assert "stdlib / main   /workspace/runs/stdlib/main" in plan
    assert plan.count("  RUN  ") == 5


def test_it_trains_evaluates_and_publishes(image: Builder, workspace: Path) -> None:
    said = image.run(["titanflow", "run", "stdlib", *SHORT, "--set", "publish.dry_run=true"], "1000:1000", workspace)
    assert "stdlib / main" in said
    run = workspace / "runs" / "stdlib" / "main"
    assert (run / "evaluate" / "result.json").is_file()
    assert '"git": "c0ffee"' in (run / "manifest.json").read_text()
    assert {path.stat().st_uid for path in run.rglob("*")} == {1000}


def test_nothing_of_this_machine_is_in_it(image: Builder, workspace: Path) -> None:
    configuration = built_image.pip_configuration()
    description = image.description()
    for line in configuration.splitlines()[1:]:
        assert line.partition(" = ")[2] not in description
    look = "ls /etc/pip.conf /root/.cache/pip /run/secrets 2>/dev/null; pip config list"
    assert image.run(["sh", "-c", look], "0:0", workspace) == ""


def test_another_commit_leaves_the_layers_of_packages(image: Builder, request: pytest.FixtureRequest) -> None:
    before = image.layers()
    image.build("--build-arg", "REVISION=decade", *torch_index(request))
    assert image.layers()[:-1] == before[:-1]
