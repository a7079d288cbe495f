"""The other end of the range of clients that are supported, beside the installed one that every test uses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from finished_run import REPO, FinishedRun
from local_hub import LocalHub

from titanflow.runs.contract import StageRun
from titanflow.runs.results import PublishResult, read_result

ROOT = Path(__file__).parents[3]
INSTALLED = int(huggingface_hub.__version__.split(".")[0])
OTHER, FOLDER = ("==1.31.*", "huggingface_hub-1.31") if INSTALLED >= 2 else (">=2,<3", "huggingface_hub-2")
PUBLISH = """
import sys
from titanflow.publish.publish import main
status = main(sys.argv[1:])
import huggingface_hub
print(huggingface_hub.__version__)
sys.exit(status)
"""


@pytest.fixture(scope="session")
def client() -> Path:
    """A folder with the oldest client that is supported, or the newest where the oldest is what is installed."""
    folder = ROOT / ".cache" / FOLDER
    if not folder.exists():
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--target", str(fresh), f"huggingface_hub{OTHER}"], check=True)
        # Another test process may have been faster.
        if not folder.exists():
            fresh.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def published(run: StageRun, client: Path) -> PublishResult:
    path = os.pathsep.join([str(client), str(ROOT)])
    command = [sys.executable, "-c", PUBLISH, str(run.write())]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1].split(".")[0]) != INSTALLED
    result = read_result(run.folder)
    assert isinstance(result, PublishResult)
    return result


def test_a_push_and_what_it_downloads_again(client: Path, finished: FinishedRun, hub: LocalHub) -> None:
    hub.part_size = 500
    run = finished.to_publish(target="hub", repo_id=REPO)
    pushed = published(run, client)
    repo = hub.repos[REPO]
    assert repo.tags == {"run-7": pushed.commit}
    assert repo.at("run-7").files.keys() == {*pushed.files, ".gitattributes"}
    assert repo.at("run-7").files["model.safetensors"].sha256 == pushed.files["model.safetensors"]
    assert hub.requests("PUT .*/parts/") == 2
    assert hub.requests("GET .*/resolve/.*/model.safetensors") == 1
    assert published(run, client).commit == pushed.commit
    assert len(repo.commits) == 2


def test_a_lost_answer_and_a_pull_request(client: Path, finished: FinishedRun, hub: LocalHub) -> None:
    hub.drop("POST .*/commit/")
    result = published(finished.to_publish(target="hub", repo_id=REPO, pull_request=True), client)
    assert result.pull_request.endswith(f"{REPO}/discussions/1")
    assert len(hub.repos[REPO].pull_requests) == 1
    assert hub.repos[REPO].at("refs/pr/1").oid == result.commit
