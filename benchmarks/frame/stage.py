"""A stage of this project as ``titanflow run`` starts it, without the flow: planned, prepared, and then its command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frame.inputs import VOCAB
from frame.processes import Ran, run
from frame.trainings import Side, Step

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import Plan

ENDLESS = 10**6
QUIET = {"metrics": {"enable_wandb": False, "log_freq": 1}, "checkpoint": {"interval": ENDLESS}}
"""No tracker, a record a step, and no checkpoint within the measurement."""

DEBUG_MODEL = "llama3_debugmodel.yaml"
LLAMAS = {
    "tiny": {"dim": 64, "n_layers": 2, "n_heads": 2},
    "default": {"dim": 128, "n_layers": 4, "n_heads": 4, "vocab_size": 2048, "multiple_of": 64},
    "12M": {"dim": 256, "n_layers": 8, "n_heads": 4},
    "50M": {"dim": 576, "n_layers": 10, "n_heads": 9},
}


def planned(kind: str, module: Mapping[str, Any], workspace: Path, name: str, steps: int) -> Plan:
    """A plan of one training, whose data is prepared and whose folder is ready for its process.

    ``module`` is what an experiment says of it, ``name`` the experiment's. Trainings of one workspace share their
    prepared data.
    """
    from titanflow.planning.begin import begin_stage
    from titanflow.planning.plan import make_plan

    overrides = merged(QUIET, {"training": {"steps": steps}}, module.get("overrides", {}))
    entry = {"framework": "torchtitan", "config": f"{kind}.yaml", **module, "overrides": overrides}
    plan = make_plan(json.dumps({"exp_name": name, "workspace": str(workspace), "modules": {kind: entry}}))
    for stage in plan.stages:
        begin_stage(stage)
        # The data may be that of the training before.
        if stage.stage == "prepare" and not all(Path(one["folder"]).is_dir() for one in stage.run.config["datasets"]):
            run(stage.command, stage.env)
    return plan


def training_side(kind: str, module: Mapping[str, Any], workspace: Path, name: str, read: Any) -> Side:
    """A training of this project that goes on until it is ended; see :func:`planned`."""
    trained = planned(kind, module, workspace, name, ENDLESS).stages[-1]
    return Side("titanflow", trained.command, trained.run.folder / "metrics.jsonl", read, trained.env)


def finished_training(module: Mapping[str, Any], workspace: Path, name: str, steps: int = 1) -> tuple[Path, Ran]:
    """A pretraining that ran to its end: its folder, and its process."""
    trained = planned("pretrain", module, workspace, name, steps).stages[-1]
    return trained.run.folder, run(trained.command, trained.env)


def llama(size: str, text: Path, tokenizer: Path, **overrides: Any) -> dict[str, Any]:
    """A module that trains a llama of this project on text, of a size of :data:`LLAMAS`, at little cost a step."""
    sections: dict[str, Any] = {
        "training": {"seq_len": 32, "local_batch_size": 1},
        "lr_scheduler": {"warmup_steps": 0},
        "tokenizer": {"path": str(tokenizer)},
    }
    model = {"vocab_size": VOCAB, **LLAMAS[size]}
    data = {"kind": "text", "path": str(text)}
    return {"model": DEBUG_MODEL, "data": data, "overrides": merged(sections, {"model": model}, overrides)}


def matrices(size: str) -> int:
    """The weights of a llama of :data:`LLAMAS` that are multiplied by each token: its layers' and the head's."""
    shape = {"vocab_size": VOCAB, "multiple_of": 256, **LLAMAS[size]}
    wide = shape["dim"]
    hidden = -(-(8 * wide // 3) // shape["multiple_of"]) * shape["multiple_of"]
    return shape["n_layers"] * (4 * wide**2 + 3 * wide * hidden) + wide * shape["vocab_size"]


def merged(*sections: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings laid over each other, section by section."""
    found: dict[str, Any] = {}
    for one in sections:
        for key, value in one.items():
            both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
            found[key] = merged(found[key], value) if both else value
    return found


def trained_tokens(records: Sequence[Mapping[str, Any]]) -> list[Step]:
    """The steps of a ``metrics.jsonl`` with a record a step; the work is the tokens that have a label.

    A record has them as a rate over the same time as that of all tokens.
    """
    found, before = [], 0
    for record in records:
        if "loss" not in record:
            continue
        seen, before = record["tokens"] - before, record["tokens"]
        rate = record["tokens_per_second"]
        trained = seen * record.get("trained_tokens_per_second", rate) / rate
        found.append(Step(record["seconds"], trained, record["loss"]))
    return found


def rows_a_step(rows: int) -> Any:
    """A reader of a ``metrics.jsonl`` whose work is so many rows a step."""

    def read(records: Sequence[Mapping[str, Any]]) -> list[Step]:
        return [Step(record["seconds"], rows, record["loss"]) for record in records if "loss" in record]

    return read


def peer_steps(records: Sequence[Mapping[str, Any]]) -> list[Step]:
    """The steps that a program of ``peers/`` writes."""
    return [Step(record["seconds"], record["work"], record["loss"]) for record in records]
