"""The mean of a finished stage's last two checkpoints: ``average.py STAGE FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from titan.weights.mean import make_mean
from titanflow.config.means.recipe import Mean

if __name__ == "__main__":
    stage, folder = map(Path, sys.argv[1:])
    make_mean(folder.name, Mean((stage.name,), (0.5, 0.5), last=2), {stage.name: stage}, folder)
