"""The script of the pictures, with a browser that draws nothing: what it is shown, and what is said without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from titanflow.runs.results import PublishResult, write_result

ROOT = Path(__file__).parent.parent.parent
CARD = """---
license: mit
tags:
- <b>tag</b>
---

# A card

| a | b |
| --- | --- |
| one<br>two | &#60;i&#62; |

<script>alert(1)</script>
"""
# Keeps the pages that it was shown.
BROWSER = """#!{python}
import shutil, sys
from pathlib import Path
out = next(argument.partition("=")[2] for argument in sys.argv if argument.startswith("--screenshot="))
shutil.copy(sys.argv[-1].removeprefix("file://"), Path(__file__).parent)
shutil.copy(Path(__file__).with_name("picture.png"), out)
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "publish" / "model").mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"experiment": "tiny", "run": "main", "stages": []}))
    (folder / "publish" / "model" / "README.md").write_text(CARD)
    write_result(folder / "publish", PublishResult(target="folder", location=str(folder / "publish" / "model")))
    return folder


@pytest.fixture
def browser(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "chromium").write_text(BROWSER.format(python=sys.executable))
    (folder / "chromium").chmod(0o755)
    Image.new("RGB", (8, 8), "white").save(folder / "picture.png")
    return folder


def screenshots(run: Path, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docs" / "screenshots.py"), str(run), "--out", str(run.parent / "images")]
    environment = os.environ | {"PATH": str(path), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_report_and_card_are_pictured_light_and_dark(run: Path, browser: Path) -> None:
    done = screenshots(run, browser)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (run.parent / "images").iterdir())
    assert names == ["card-dark.png", "card-light.png", "report-dark.png", "report-light.png"]
    card = (browser / "card.html").read_text()
    assert "<td>one<br>two</td>" in card
    assert "<td>&lt;i&gt;</td>" in card
    assert "<script" not in card
    assert '<span class="chip">&lt;b&gt;tag&lt;/b&gt;</span>' in card


def test_without_a_browser_it_says_which_to_install(run: Path, tmp_path: Path) -> None:
    done = screenshots(run, tmp_path / "nothing")
    assert done.returncode == 2
    assert "install one of chromium" in done.stderr


def test_a_run_that_published_no_folder(run: Path, browser: Path) -> None:
    write_result(run / "publish", PublishResult(target="hub", location="https://hub.example/a/b"))
    done = screenshots(run, browser)
    assert done.returncode == 2
    assert "has published no folder with a card" in done.stderr
