"""The package as a wheel has it, used from a folder whose files are called as its libraries are."""

import json
import os
import re
import runpy
import socket
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from own_files import sharegpt, wiki
from tiny_experiment import write_tiny_experiment

ROOT = Path(__file__).parent.parent
HOSTILE = (
    *("datasets.py", "deployments.py", "flows.py", "json.py", "logging.py", "numpy.py", "prefect.py", "psutil.py"),
    *("tasks.py", "titanflow.py", "torch.py", "transformers.py", "typing.py", "yaml.py"),
    *("titan/__init__.py", "torchtitan/__init__.py", "lm_eval/__init__.py"),
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked wheel of this project, as it lies in site-packages."""
    built = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (file,) = built.glob("*.whl")
    place = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(file).extractall(place)
    return place


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose modules end every process that imports them."""
    folder = tmp_path / "hostile"
    for name in HOSTILE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("raise SystemExit(f'{__file__} was imported')\n", encoding="utf-8")
    return folder


def titanflow(wheel: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as the wheel's script starts it."""
    script = "import sys, titanflow.cli.main as cli; assert cli.__file__.startswith(sys.argv.pop(1)), cli; cli.main()"
    environ = {**os.environ, "PYTHONPATH": str(wheel), "HF_HUB_OFFLINE": "1", "PREFECT_HOME": str(wheel.parent)}
    command = [sys.executable, "-P", "-c", script, str(wheel), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environ)


def test_every_file_is_in_it(wheel: Path) -> None:
    packages = ("flows", "tasks", "titan", "titanflow", "deployments")
    sources = [path for name in (*packages, "configs") for path in (ROOT / name).rglob("*") if path.is_file()]
    there = {path.relative_to(ROOT) for path in sources if "__pycache__" not in path.parts}
    wanted = {Path("titanflow") / path if path.parts[0] == "configs" else path for path in there}
    found = {path.relative_to(wheel) for path in wheel.rglob("*") if path.is_file()}
    assert {path for path in found if "dist-info" not in path.parts[0]} == wanted


def test_its_page_has_no_link_that_leads_nowhere(wheel: Path) -> None:
    (found,) = wheel.glob("*.dist-info/METADATA")
    metadata = message_from_string(found.read_text(encoding="utf-8"))
    assert metadata["Description-Content-Type"] == "text/markdown"
    page = metadata.get_payload()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert sum(name in page for name in re.findall(r"\]\((docs/[\w-]+\.md)\)", readme)) >= 19
    assert re.findall(r"\]\((?!https://)|<img|<picture|^<!--", page, re.MULTILINE) == []
    assert "lie in the source distribution" in page


def test_its_links_lead_to_the_repository_if_that_has_an_address() -> None:
    package_page = runpy.run_path(str(ROOT / "hatch_build.py"))["package_page"]
    page = package_page((ROOT / "README.md").read_text(encoding="utf-8"), "https://example.org/titanflow")
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert len(targets) > 25
    beginnings = ("https://example.org/titanflow/blob/HEAD/", "https://example.org/titanflow/raw/HEAD/docs/images/")
    assert [target for target in targets if not target.startswith(beginnings)] == []
    assert "<img" not in page


def test_the_plan_of_its_own_experiment(wheel: Path, hostile: Path) -> None:
    done = titanflow(wheel, hostile, "plan", "stdlib", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["folder"] == str(hostile / "runs" / "stdlib" / "main")
    assert [stage["state"] for stage in plan["stages"]] == ["RUN"] * 5
    assert sorted(path.name for path in hostile.iterdir()) == sorted({name.split("/")[0] for name in HOSTILE})


def test_an_experiment_from_files_of_one_s_own(wheel: Path, hostile: Path) -> None:
    wiki(hostile)
    sharegpt(hostile)
    done = titanflow(wheel, hostile, "init", "my", "--text", "wiki.txt", "--chats", "chats.json")
    assert done.returncode == 0, done.stderr
    planned = json.loads(titanflow(wheel, hostile, "plan", "my", "--json").stdout)
    assert [stage["state"] for stage in planned["stages"]] == ["RUN"] * 5


def test_its_configs_are_its_own(wheel: Path, hostile: Path) -> None:
    # Another package may have put a `configs` into site-packages.
    (wheel / "configs" / "modules").mkdir(parents=True, exist_ok=True)
    done = titanflow(wheel, hostile, "config", "stdlib", "--origin")
    assert done.returncode == 0, done.stderr
    assert str(wheel / "titanflow" / "configs" / "experiments" / "stdlib.yaml") in done.stdout


def test_it_serves_from_a_folder_that_is_no_clone(wheel: Path, hostile: Path, tmp_path: Path) -> None:
    hidden = titanflow(wheel, hostile, "serve")
    assert (hidden.returncode, "which Prefect would import" in hidden.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = titanflow(wheel, tmp_path / "empty", "serve", "--port", str(port))
    # The last thing that is asked before a server starts: the deployments and the nights' experiment are found by now.
    assert f"error: --port: port {port} is taken" in done.stderr
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_process_that_prepares_data(wheel: Path, hostile: Path, tmp_path: Path) -> None:
    configs = write_tiny_experiment(tmp_path / "tiny")
    assert "proved" in titanflow(wheel, hostile, "masks", "tiny", "--configs", str(configs)).stdout


def test_a_program_that_imports_torch(wheel: Path, hostile: Path) -> None:
    done = titanflow(wheel, hostile, "export", "nothing", "exported")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no run.yaml" in done.stderr
