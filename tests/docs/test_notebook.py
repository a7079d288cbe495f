"""``docs/notebook.ipynb`` in a kernel as Jupyter starts it, and an interrupt of its run."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from nbclient import NotebookClient
from watching import PATIENCE

import titanflow

pytestmark = pytest.mark.slow
NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the kernels work."""
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> dict[str, str]:
    """The kernels' environment; what Jupyter keeps for itself lies in a folder of the test's."""
    own = tmp_path_factory.mktemp("jupyter")
    jupyter = {name: str(own) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")}
    return {**os.environ, **jupyter, "PREFECT_HOME": str(prefect_home), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def cells(folder: Path, environ: dict[str, str]) -> list[Any]:
    """The notebook's code cells after it ran from its first to its last."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=environ)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def kernel(folder: Path, environ: dict[str, str]) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """Another kernel in the same folder."""
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(folder), env=environ)
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def output_of(cells: list[Any], code: str, kind: str = "text/plain") -> str:
    """What the cell that begins with ``code`` printed, or the object that it shows."""
    (cell,) = (cell for cell in cells if cell.source.startswith(code))
    texts = [one.text if one.output_type == "stream" else one.data.get(kind, "") for one in cell.outputs]
    return "".join(texts)


def reply_to(client: BlockingKernelClient, asked: str) -> dict[str, Any]:
    """The kernel's reply to one request; those of its start come before."""
    while (message := client.get_shell_msg(timeout=PATIENCE))["parent_header"].get("msg_id") != asked:
        pass
    content: dict[str, Any] = message["content"]
    return content


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert [cell.outputs for cell in notebook.cells if cell.cell_type == "code" if cell.outputs] == []


def test_it_plans_runs_draws_and_generates(cells: list[Any], folder: Path) -> None:
    assert "RUN" in output_of(cells, "titanflow.plan", "text/html")
    assert "did you mean `pretrain.training.steps`?" in output_of(cells, "try:")
    lines = output_of(cells, "run = ").splitlines()
    assert any(line.startswith("pretrain  RUN") for line in lines)
    assert any(re.search(r"pretrain step 60\b.*loss", line) for line in lines)
    # No live view and no colours: each line stands for itself.
    assert not re.search(r"[\x1b\r\x08]", "".join(lines))
    assert output_of(cells, "import matplotlib", "image/png")
    assert "'what': 'export'" in output_of(cells, "results.paths")
    assert re.search(r"The river is (red|green|blue)\.", output_of(cells, "model, tokenizer"))
    found = titanflow.results(folder / "runs" / "notebook" / "main")
    assert [one["step"] for one in found.losses] == [1, *range(5, 61, 5)]
    assert found.losses[-1]["loss"] < 1 < found.losses[0]["loss"]


def test_an_interrupt_of_the_kernel_saves_and_the_next_call_goes_on(
    cells: list[Any], folder: Path, kernel: tuple[KernelManager, BlockingKernelClient]
) -> None:
    manager, client = kernel
    begin = "import asyncio\nassert asyncio.get_running_loop().is_running()\n"
    endless = {"pretrain.training.steps": 1_000_000}
    asked = client.execute(f"{begin}{cells[0].source}\ntitanflow.run(experiment, run='stopped', overrides={endless})")
    said = ""
    while "pretrain step " not in said:
        message = client.get_iopub_msg(timeout=PATIENCE)
        said += message["content"].get("text", "")
        assert message["msg_type"] != "error", message["content"]
    manager.interrupt_kernel()
    assert reply_to(client, asked)["ename"] == "KeyboardInterrupt"
    paths = titanflow.results(folder / "runs" / "notebook" / "stopped").paths
    steps = [one["step"] for one in paths if one["what"] == "checkpoint"]
    assert len(steps) == 1
    plan = f"titanflow.plan(experiment, run='stopped', overrides={endless}).stages[-1]"
    answer = client.execute_interactive(
        "", user_expressions={"stage": f"({plan}.state, {plan}.reason)"}, timeout=PATIENCE, store_history=False
    )
    shown = answer["content"]["user_expressions"]["stage"]["data"]["text/plain"]
    assert re.fullmatch(rf"\('RESUME',\s+'.*step {steps[0]}\b.*'\)", shown)
