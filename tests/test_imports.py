"""The rooms' walls: what each may import."""

import subprocess
import sys
from pathlib import Path

import pytest

from titanflow.planning.launch import MODULES

ROOT = Path(__file__).parent.parent


def loaded_after(statement: str, *modules: str) -> list[str]:
    program = f"{statement}\nimport sys\nprint(*[m for m in {modules!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.split()


def modules_of(package: str) -> list[str]:
    paths = sorted((ROOT / package).rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def test_flows_and_tasks_import_no_torch_and_no_titan() -> None:
    statement = "import " + ", ".join(modules_of("flows") + modules_of("tasks"))
    assert loaded_after(statement, "torch", "torchtitan", "titan", "transformers", "lm_eval") == []


def test_titan_imports_no_prefect() -> None:
    statement = "import " + ", ".join(modules_of("titan"))
    assert loaded_after(statement, "prefect", "flows", "tasks") == []


def test_titanflow_imports_neither_torch_nor_prefect() -> None:
    statement = "import " + ", ".join(modules_of("titanflow"))
    assert loaded_after(statement, "torch", "prefect", "flows", "tasks", "titan", "datasets", "transformers") == []


def test_a_stage_imports_nothing_slow_before_it_has_read_what_it_is_to_do() -> None:
    statement = "import " + ", ".join(sorted(set(MODULES.values())))
    assert loaded_after(statement, "torch", "torchtitan", "transformers", "datasets", "lm_eval") == []


def test_the_package_alone_imports_nothing_of_itself_and_nothing_slow() -> None:
    rooms = [module for module in modules_of("titanflow") if module != "titanflow"]
    assert loaded_after("import titanflow\ndir(titanflow)", *rooms, "importlib.metadata", "typer", "rich", "yaml") == []


def test_a_plan_from_python_imports_no_more_than_the_command_line_s() -> None:
    heavy = ("numpy", "pyarrow", "pandas", "tokenizers", "huggingface_hub", "httpx", "safetensors", "typer")
    face = "titanflow.plan, titanflow.run, titanflow.results, titanflow.load"
    assert loaded_after(f"import titanflow\n{face}", *heavy) == []


def test_a_plan_imports_nothing_heavy() -> None:
    heavy = ("numpy", "pyarrow", "pandas", "tokenizers", "huggingface_hub", "httpx", "safetensors")
    assert loaded_after("import titanflow.cli.main, titanflow.planning.plan, titanflow.planning.view", *heavy) == []


def test_a_look_at_the_first_lines_of_a_file_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "words"}\n' * 99, encoding="utf-8")
    look = f"read_head(Path({str(tmp_path / 'rows.jsonl')!r}), 10)"
    statement = (
        f"from pathlib import Path\nfrom titanflow.data.inspect.head import read_head\nassert not {look}.is_whole"
    )
    assert loaded_after(statement, "numpy", "pyarrow") == []


def test_help_imports_no_keys_and_nothing_that_reads_them() -> None:
    unused = ("pydantic", "yaml", "jinja2", "titanflow.config.keys.experiment", "titanflow.runs")
    assert loaded_after("import titanflow.cli.main", *unused) == []


@pytest.mark.parametrize("package", ["flows", "tasks", "titan", "titanflow", "deployments"])
def test_every_package_has_modules(package: str) -> None:
    assert modules_of(package)
