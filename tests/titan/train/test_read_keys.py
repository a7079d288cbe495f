"""Nothing in a config is silently ignored: each key that a schema knows is read somewhere, or refused."""

import re
from pathlib import Path

import pytest
import torchtitan

from titanflow.config.checks.refused import REFUSED
from titanflow.config.files.schema import Schema, dataclass_schema
from titanflow.config.keys.experiment import ExperimentSpec, ModuleSpec
from titanflow.config.module import stage_schema

ROOT = Path(__file__).parents[3]
TORCHTITAN = Path(next(iter(torchtitan.__path__)))
SCHEMAS = {
    "pretrain": stage_schema("pretrain"),
    "evaluate": stage_schema("evaluate"),
    "publish": stage_schema("publish"),
    "experiment": dataclass_schema(ExperimentSpec),
    "module": dataclass_schema(ModuleSpec),
}


def leaves(schema: Schema, above: str = "") -> list[str]:
    if "properties" not in schema:
        return [above]
    return [leaf for key, one in schema["properties"].items() for leaf in leaves(one, f"{above}.{key}".strip("."))]


def files(root: Path, kind: str) -> list[Path]:
    """Without those that name keys and read none: their bounds, others' names for them, those of Prefect's form."""
    found = [path for path in root.rglob(kind) if "experiments" not in path.relative_to(root).parts]
    return [path for path in found if path.name not in ("bounds.py", "foreign_names.py", "form.py")]


@pytest.fixture(scope="module")
def read_names() -> set[str]:
    """Every name that is read as an attribute, or stands in quotes, alone or at the end of a dotted key."""
    ours = [ROOT / name for name in ("titanflow", "titan", "tasks", "flows", "deployments")]
    found = [path for root in (*ours, TORCHTITAN) for kind in ("*.py", "*.jinja") for path in files(root, kind)]
    text = "\n".join(path.read_text() for path in found)
    return {*re.findall(r"\.([a-z]\w*)", text), *re.findall(r"[\"'](?:\w+\.)*([a-z]\w*)[\"']", text)}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_each_key_is_read_or_refused(read_names: set[str], schema: str) -> None:
    unread = [key for key in leaves(SCHEMAS[schema]) if key.rpartition(".")[2] not in read_names]
    assert [key for key in unread if key not in REFUSED] == []
