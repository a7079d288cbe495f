"""A tiny model is published with its GGUF file, by the real parts of the stage; llama.cpp then answers with it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "titanflow" / "publish"))
from finished_run import FinishedRun

from titan.gguf.llama_cpp import LlamaCpp
from titan.inference.greedy import record_greedy
from titan.weights.hf_folder import load_folder, load_tokenizer
from titanflow.publish.integrity import check_folder
from titanflow.publish.publish import publish

pytestmark = pytest.mark.slow


def test_a_proved_file_is_published_and_says_what_the_evaluated_model_said(
    exported: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    export = tmp_path / "run-7" / "sft" / "export"
    shutil.copytree(exported("qwen3"), export)
    model, _ = load_folder(export)
    said = record_greedy(model, load_tokenizer(export))
    result = publish(FinishedRun.write(tmp_path / "run-7").to_publish(gguf=["f16"]))
    folder = Path(result.location)
    checks, record = check_folder(folder)
    assert all(check.passed for check in checks)
    assert record["gguf"]["stdlib-sft-F16.gguf"]["positions"] == 128
    with LlamaCpp(folder / "stdlib-sft-F16.gguf", 64) as runtime:
        assert runtime.generate(said.prompt, len(said.continuation)) == said.continuation
