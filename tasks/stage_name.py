"""What a stage's task run is called."""

from __future__ import annotations

from typing import Any

from titanflow.stage import StageRun


def task_run_name(parameters: dict[str, Any]) -> str:
    """The stage and what it works on: ``pretrain llama3``; Prefect calls it with the task's parameters."""
    return stage_name(parameters["plan"].run)


def stage_name(run: StageRun) -> str:
    """A stage in a few words: each line of the log begins with them."""
    config = run.config
    match run.stage:
        case "prepare":
            detail = _count(config.get("datasets"), "dataset")
        case "evaluate":
            detail = _count(config.get("tasks"), "task")
        case "publish":
            return f"push_to_hub {config['repo_id']}" if config.get("target") == "hub" else "push_to_hub"
        case _:
            lora = (config.get("lora") or {}).get("rank")
            detail = (config.get("model") or {}).get("name", "") + (f" LoRA {lora}" if lora else "")
    return f"{run.stage} {detail}".rstrip()


def _count(things: Any, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}" if things else ""
