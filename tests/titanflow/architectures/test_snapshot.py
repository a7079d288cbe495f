import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from titanflow.architectures import torchtitan
from titanflow.architectures.torchtitan import load_snapshot, snapshot_path
from titanflow.common.errors import ConfigError

ROOT = Path(__file__).parents[3]


def test_the_snapshot_is_what_the_installed_torchtitan_says() -> None:
    program = (
        "import sys; from titan.models.snapshot import render, take_snapshot; sys.stdout.write(render(take_snapshot()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == json.loads(snapshot_path(version("torchtitan")).read_text())


def test_every_language_model_flavor_is_there() -> None:
    models = load_snapshot()["models"]
    assert set(models["llama3"]["flavors"]) >= {"debugmodel", "8B", "70B", "405B"}
    assert models["llama3"]["flavors"]["8B"]["n_kv_heads"] == 8
    assert models["qwen3"]["flavors"]["0.6B"]["enable_weight_tying"] is True


@pytest.mark.parametrize("family", ["llama3", "qwen3", "deepseek_v3", "qwen2"])
def test_every_flavor_has_a_model_file(family: str) -> None:
    from titanflow.files.yaml_source import plain, read_tree

    named = {
        (tree["model"]["name"], str(tree["model"]["flavor"]))
        for tree in (plain(read_tree(path)) for path in (ROOT / "configs" / "models").glob("*.yaml"))
    }
    assert {flavor for name, flavor in named if name == family} >= set(load_snapshot()["models"][family]["flavors"])


def test_an_unknown_torchtitan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchtitan, "version", lambda package: "9.9.9")
    with pytest.raises(ConfigError, match=r"9\.9\.9.*torchtitan==0\.2\.2"):
        load_snapshot.__wrapped__()
