"""A model under evaluation: the folder it is read from, lm-eval's backend on it, one task at a time."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titan.eval_scores import answers
from titan.eval_tasks import wants_chat
from titan.export import EXPORT_FOLDER, export_checkpoint
from titanflow.config.additions import Evaluate
from titanflow.errors import ConfigError, Problem, StageFailed
from titanflow.fingerprint import folder_digests
from titanflow.hf_base import CONFIG_FILE, is_hugging_face
from titanflow.remote_code import trust_remote_code
from titanflow.stage import StageRun

STAGE_OF = {"base": "pretrain", "sft": "sft"}
"""The names that ``models`` gives to this run's stages; ``base`` may be one that lies outside of it."""
CPU_BATCH_SIZE = 16
"""For ``batch_size: auto`` on a CPU, where lm-eval would time its way up to its cap of 64 and be slower."""
CPU_WINDOW_TOKENS = 2048
"""Tokens at a time in full windows of text on a CPU: the logits of more fall out of its cache and
take twice as long."""

logger = logging.getLogger("titanflow.evaluate")


@dataclass(frozen=True)
class Scored:
    """One task or group of one model: lm-eval's results and each item's answer by task."""

    results: Mapping[str, Any]
    answers: dict[str, dict[int, dict[str, str]]]
    seconds: float


def model_folders(run: StageRun, settings: Evaluate) -> dict[str, Path]:
    """The folder of each model to evaluate; a stage that has no export yet gets one.

    Raises:
        ConfigError: a model that is no stage of this run and no folder that transformers loads, or one that brings
            code that isn't this package's.
    """
    if isinstance(settings.models, Mapping):
        folders = {name: Path(path).absolute() for name, path in settings.models.items()}
    else:
        folders = {name: _stage_export(run, name) for name in settings.models}
    if not folders:
        raise ConfigError(Problem("nothing to evaluate", key="models", expected="base, sft, or name: folder"))
    for name, folder in folders.items():
        if not (folder / CONFIG_FILE).is_file():
            raise ConfigError(
                Problem(
                    f"{name}: no config.json in {folder}", key="models", expected="a folder that transformers loads"
                )
            )
        trust_remote_code(folder, f"models.{name}", run.origins.get("models", ""))
    return folders


def _stage_export(run: StageRun, name: str) -> Path:
    stage = name if name in run.stages else STAGE_OF.get(name, name)
    if stage not in run.stages:
        raise ConfigError(
            Problem(
                f"{name!r} is no stage of this run",
                key="models",
                origin=run.origins.get("models", ""),
                expected=", ".join(run.stages) or "a mapping from a name to a folder",
            )
        )
    if is_hugging_face(run.stages[stage]):
        return run.stages[stage].absolute()
    folder = run.stages[stage] / EXPORT_FOLDER
    if not (folder / CONFIG_FILE).is_file():
        logger.info("%s has no export yet: exporting its newest checkpoint", run.stages[stage])
        export_checkpoint(run.stages[stage], folder)
    return folder.absolute()


def load_model(folder: Path, settings: Evaluate, trained_here: bool) -> Any:
    """lm-eval's transformers backend on a folder.

    Args:
        folder: what transformers loads.
        settings: batch size, device, dtype.
        trained_here: documents were separated by the end of text and began with nothing else, so a text's first
            token is scored after that one. A foreign model keeps what its tokenizer says.

    Raises:
        ConfigError: the folder brings code that isn't this package's.
    """
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    trusted = trust_remote_code(folder, key="models")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
    return HFLM(
        pretrained=str(folder),
        tokenizer=tokenizer,
        backend="causal",
        device=device,
        dtype=settings.dtype,
        batch_size=settings.batch_size,
        trust_remote_code=trusted,
        prefix_token_id=tokenizer.eos_token_id if trained_here else None,
        add_bos_token=False if trained_here else None,
    )


def batch_size_for(loaded: Any, model: Any, settings: Evaluate) -> int | str:
    """Sequences at a time for a task: the configured number, on a CPU fewer where each is a full window of text."""
    if model.device.type != "cpu":
        return settings.batch_size
    size = CPU_BATCH_SIZE if settings.batch_size == "auto" else int(settings.batch_size)
    if any(task.OUTPUT_TYPE == "loglikelihood_rolling" for task in loaded["tasks"].values()):
        return max(1, min(size, CPU_WINDOW_TOKENS // model.max_length))
    return size


def evaluate_task(model: Any, loaded: Any, settings: Evaluate, log: io.TextIOBase) -> Scored:
    """Runs one task or group, with every source of chance seeded.

    ``lm_eval.evaluate`` is what ``simple_evaluate`` calls; called directly it spares a survey of the machine for
    each task and doesn't ask the environment which rank this is.
    """
    import numpy as np
    import torch
    from lm_eval import evaluate

    chat = wants_chat(loaded, settings.apply_chat_template)
    if chat and not model.tokenizer.chat_template:
        raise ConfigError(
            Problem(
                f"{', '.join(loaded['tasks'])} ask through a chat template, and {model.pretrained} has none",
                key="apply_chat_template",
            )
        )
    model.batch_size_per_gpu = batch_size_for(loaded, model, settings)
    random.seed(settings.seed)
    np.random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    started = time.monotonic()
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        results = evaluate(
            lm=model,
            task_dict=loaded,
            limit=settings.limit,
            bootstrap_iters=settings.bootstrap_iters,
            apply_chat_template=chat,
            fewshot_as_multiturn=settings.fewshot_as_multiturn,
        )
    return Scored(
        results=results,
        answers={name: answers(task, results["samples"][name]) for name, task in loaded["tasks"].items()},
        seconds=time.monotonic() - started,
    )


def check_unchanged(folders: Mapping[str, Path], digests: Mapping[str, Mapping[str, str]]) -> None:
    """Raises :class:`StageFailed` if a folder's files aren't those of ``digests`` any more."""
    for name, folder in folders.items():
        now = folder_digests(folder)
        changed = sorted(file for file in {*now, *digests[name]} if now.get(file) != digests[name].get(file))
        if changed:
            raise StageFailed(
                f"{folder}: {', '.join(changed)} changed while {name} was evaluated, so the scores belong to no "
                "version of it. Evaluate again while nothing writes there."
            )
