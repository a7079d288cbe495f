"""An evaluation holds one model at a time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from peak_memory import peak_of
from tiny_evals import write_evals
from tiny_evaluation import Trained, evaluation
from tiny_exports import write_byte_tokenizer
from tiny_means import write_stage

from titan.export.export import export_checkpoint
from titanflow.runs.contract import RUN_FILE


@pytest.mark.slow
def test_an_evaluation_of_three_models_takes_the_memory_of_one(tmp_path: Path) -> None:
    tokenizer = write_byte_tokenizer(tmp_path / "tokenizer")
    model = tmp_path / "model"
    export_checkpoint(write_stage(tmp_path / "stage", [0], tokenizer, dim=1024, n_layers=2), model)
    (tmp_path / "evals").mkdir()
    trained = Trained(tmp_path, write_evals(tmp_path / "evals"))
    peaks = []
    for count in (1, 3):
        models = {f"model{number}": str(model) for number in range(count)}
        run = evaluation(trained, tmp_path / f"evaluate{count}", tasks=["tiny_kind"], limit=2, models=models)
        peaks.append(peak_of([sys.executable, "-m", "titan.evaluate.evaluate", str(run.folder / RUN_FILE)]))
    size = (model / "model.safetensors").stat().st_size
    assert size > 80e6
    assert peaks[1] - peaks[0] < size / 2, (peaks, size)
