"""A mean of models takes the memory of some tensors, and not of the models."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from peak_memory import peak_of
from tiny_exports import write_byte_tokenizer
from tiny_means import write_stage

MAKE = """
import sys
from pathlib import Path
from titan.weights.mean import make_mean
from titanflow.config.means.recipe import Mean
stage = Path(sys.argv[1])
mean = Mean((stage.name,), (0.5, 0.5), last=2)
assert make_mean("mean", mean, {stage.name: stage}, stage.with_name(stage.name + ".mean"))
"""


@pytest.mark.slow
def test_a_mean_takes_no_model_s_memory(tmp_path: Path) -> None:
    tokenizer = write_byte_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "make.py").write_text(MAKE)
    small = write_stage(tmp_path / "small", [0, 1], tokenizer)
    large = write_stage(tmp_path / "large", [0, 1], tokenizer, dim=320, n_layers=24)
    peaks = [peak_of([sys.executable, str(tmp_path / "make.py"), str(stage)]) for stage in (small, large)]
    model = sum(path.stat().st_size for path in (large / "checkpoint" / "step-1").glob("*.distcp"))
    assert model > 80e6
    # Two models and their sum in fp64 would be four times as much.
    assert peaks[1] - peaks[0] < model / 2, (peaks, model)
