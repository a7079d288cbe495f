import subprocess
import sys
from typing import Any

import pytest

from titanflow.families import export_refusal, supported_families


@pytest.mark.parametrize(
    ("family", "args", "reason"),
    [
        ("deepseek_v3", {}, "no export for the model family 'deepseek_v3'; supported: llama3, qwen3"),
        ("qwen3", {"moe_enabled": True}, "with experts"),
        ("qwen3", {"qk_norm": False}, "qk_norm=False"),
    ],
)
def test_a_model_without_an_export_is_refused_by_name(family: str, args: dict[str, Any], reason: str) -> None:
    assert reason in export_refusal(family, args)


def test_supported_families_are_known_without_torch() -> None:
    code = "import sys, titanflow.families as f; print(f.supported_families(), 'torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == f"{supported_families()} False"
    assert [export_refusal(family) for family in supported_families()] == ["", ""]
