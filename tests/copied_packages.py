"""The project's packages in a folder of their own, where a test may add a file, and programs that run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def copy_packages(folder: Path) -> Path:
    """``titan`` and ``titanflow`` below ``folder``; returns it."""
    for package in ("titan", "titanflow"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run_there(project: Path, *arguments: str, status: int = 0) -> str:
    """What Python prints with ``arguments`` and the packages of ``project``; its errors where it is to fail."""
    env = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run([sys.executable, *arguments], env=env, cwd=project, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout
