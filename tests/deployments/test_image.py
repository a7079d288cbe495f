"""The image, built and run for real: ``make image-test``."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import built_image
import pytest
from built_image import Builder

pytestmark = pytest.mark.image
ROOT = Path(__file__).parents[2]
SHORT = ("--set", "pretrain.training.steps=20", "--set", "sft.training.steps=20", "--set", "evaluate.limit=5")


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """The builder that has built the image."""
    if reason := built_image.why_not():
        pytest.skip(reason)
    builder = Builder(tmp_path_factory.mktemp("image"))
    builder.base()
    builder.build(ROOT, "--build-arg", "REVISION=c0ffee", *torch_index(request))
    yield builder
    builder("rmi", "--all", "--force")


def torch_index(request: pytest.FixtureRequest) -> list[str]:
    return ["--build-arg", f"TORCH_INDEX={request.config.getoption('--image')}"]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder that any user may write to, as a claim or a mount is."""
    tmp_path.chmod(0o777)
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
    # W&B leaves a link to a log of the container's, which isn't there any more.
    assert {path.lstat().st_uid for path in run.rglob("*")} == {1000}


def test_nothing_of_this_machine_is_in_it(image: Builder, workspace: Path) -> None:
    description = image.description()
    places = {word for word in built_image.pip_configuration().split() if "/" in word}
    assert [place for place in places if place in description] == []
    look = "ls /etc/pip.conf /root/.cache/pip /run/secrets 2>/dev/null; pip config list"
    assert image.run(["sh", "-c", look], "0:0", workspace) == ""


def test_an_edit_of_the_source_leaves_the_layer_of_packages(
    image: Builder, workspace: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    before = image.layers()
    edited = tmp_path_factory.mktemp("edited")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        (edited / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, edited / name)
    (edited / "titanflow" / "__init__.py").write_text('__version__ = "0.2.0"\n')
    image.build(edited, *torch_index(request))
    # The system's, the files that pin the packages, the packages; then the wheel and its installation.
    assert image.layers()[:-2] == before[:-2]
    version = image.run(["python", "-c", "import titanflow; print(titanflow.__version__)"], "1000:1000", workspace)
    assert version == "0.2.0"
