"""A model under evaluation: the folder or checkpoint it is read from, and one task at a time."""

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

from titan.evaluate.cut import cut_prompts
from titan.evaluate.lm.backends import Loading
from titan.evaluate.locks import check_locked
from titan.evaluate.scores import answers
from titan.evaluate.tasks import wants_chat
from titan.export.export import export_model
from titan.weights.stage_model import trained_model
from titanflow.architectures.huggingface import CONFIG_FILE, download_model, is_hugging_face
from titanflow.architectures.remote_code import trust_remote_code
from titanflow.common.digests import folder_digests
from titanflow.common.errors import ConfigError, Problem, StageFailed
from titanflow.common.files import expanded
from titanflow.config.keys.after_training import Evaluate
from titanflow.config.means.recipe import means_of
from titanflow.planning.evaluation.lacking_template import HINT, lacking_template
from titanflow.runs.checkpoints import METADATA, newest_checkpoint
from titanflow.runs.contract import EXPORT_FOLDER, StageRun
from titanflow.runs.training import Training, read_training

logger = logging.getLogger("titanflow.evaluate")


@dataclass(frozen=True)
class Scored:
    """One task or group of one model: lm-eval's results, and by task each item's answer and the cut prompts."""

    results: Mapping[str, Any]
    answers: dict[str, dict[int, dict[str, str]]]
    cut: dict[str, dict[str, int]]
    seconds: float


def model_loadings(run: StageRun, settings: Evaluate) -> dict[str, Loading]:
    """How to load each model: a checkpoint for ``backend: native``, else an export, which is made if missing."""
    if not settings.models:
        raise ConfigError(Problem("nothing to evaluate", key="models", expected="base, sft, or name: folder"))
    make_means(run)
    given = settings.models if isinstance(settings.models, Mapping) else dict.fromkeys(settings.models)
    return {name: _loading(run, name, path, settings) for name, path in given.items()}


def make_means(run: StageRun) -> None:
    """Makes the means among the models, and the best checkpoints, each in a folder as a stage's that has finished."""
    if not (means := means_of(run.config)):
        return
    # It imports torchtitan, which nothing else needs to evaluate an export.
    from titan.weights.mean import make_mean, unscored_steps

    for name, mean in means.items():
        for step, reason in unscored_steps(mean, run.stages).items():
            logger.warning("step %d of %s has no score, so it can't be the best: %s", step, mean.stages[0], reason)
        if made := make_mean(name, mean, run.stages, run.stages[name]):
            logger.info("%s is %s", name, made.best or mean)


def _loading(run: StageRun, name: str, given: str | None, settings: Evaluate) -> Loading:
    commits, is_native = settings.remote_code, settings.backend == "native"
    folder = _checkpoint(run, name, given) if is_native else _export(run, name, given, commits)
    digests = folder_digests(folder)
    training = Training.of(_stage(run, name)) if given is None and not is_native else None
    # The very files that training recorded need no comparison.
    if training is not None and digests != (training.result and training.result.export_digests):
        check_locked(training, folder, digests, name)
    origin = run.origins.get("models", "")
    return Loading(
        folder,
        digests,
        backend=settings.backend,
        batch_size=settings.batch_size,
        dtype=settings.dtype,
        device=settings.device,
        seed=settings.seed,
        trained_here=is_native or not isinstance(settings.models, Mapping),
        trusted=not is_native and trust_remote_code(folder, f"models.{name}", origin, commits),
    )


def _export(run: StageRun, name: str, given: str | None, commits: Mapping[str, str]) -> Path:
    """The given folder, the snapshot of a repository whose code was approved, or a stage's export."""
    if given is None:
        folder = _stage_export(run, name)
    elif given in commits:
        folder = download_model(given, commits[given])
    else:
        folder = expanded(given).absolute()
    if not (folder / CONFIG_FILE).is_file():
        found = f"{name}: no config.json in {folder}"
        raise ConfigError(Problem(found, key="models", expected="a folder that transformers loads"))
    return folder


def _stage_export(run: StageRun, name: str) -> Path:
    stage = _stage(run, name)
    if is_hugging_face(stage):
        return stage
    folder = stage / EXPORT_FOLDER
    if not (folder / CONFIG_FILE).is_file():
        logger.info("%s has no export yet: exporting its newest checkpoint", stage)
        export_model(trained_model(read_training(stage), newest_checkpoint(stage / "checkpoint")), folder)
    return folder


def _checkpoint(run: StageRun, name: str, given: str | None) -> Path:
    """The given ``step-N`` folder, or a stage's newest."""
    folder = expanded(given).absolute() if given else _stage(run, name)
    if (folder / METADATA).is_file():
        return folder
    if is_hugging_face(folder):
        found = f"{name}: {folder} is a model of transformers, and backend: native reads checkpoints"
        expected = "a training stage's folder, or checkpoint/step-N of it"
        raise ConfigError(Problem(found, key="models", expected=expected))
    return newest_checkpoint(folder / "checkpoint")


def _stage(run: StageRun, name: str) -> Path:
    if name not in run.stages:
        expected, origin = ", ".join(run.stages) or "a mapping from a name to a folder", run.origins.get("models", "")
        raise ConfigError(Problem(f"{name!r} is no stage of this run", "models", origin, expected))
    return run.stages[name].absolute()


def evaluate_task(
    lm: Any,
    loaded: Any,
    name: str,
    settings: Evaluate,
    log: io.TextIOBase,
    items: dict[str, list[int]] | None = None,
) -> Scored:
    """Runs the task or group ``name``, with all random generators seeded; ``items`` None scores all items.

    ``simple_evaluate`` would call ``lm_eval.evaluate`` too, but first survey the machine for each task and read this
    rank from the environment.
    """
    import numpy as np
    import torch
    from lm_eval import evaluate

    chat = wants_chat(loaded, name, settings.chat)
    if chat and not lm.tokenizer.chat_template:
        raise ConfigError(Problem(lacking_template(list(loaded["tasks"]), lm.name), key="chat", hint=HINT))
    random.seed(settings.seed)
    np.random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    started = time.monotonic()
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        results = evaluate(
            lm=lm,
            task_dict=loaded,
            limit=None if items else settings.limit,
            samples=items,
            bootstrap_iters=settings.bootstrap_iters,
            system_instruction=settings.system_instruction,
            apply_chat_template=chat,
            fewshot_as_multiturn=settings.fewshot_as_multiturn,
        )
    for name, numbers in (items or {}).items():
        # lm-eval reports all items as scored.
        results["n-samples"][name]["effective"] = len(numbers)
    return Scored(
        results=results,
        answers={name: answers(task, results["samples"][name]) for name, task in loaded["tasks"].items()},
        cut={name: cut for name, task in loaded["tasks"].items() if (cut := cut_prompts(lm, task))},
        seconds=time.monotonic() - started,
    )


def check_unchanged(models: Mapping[str, Loading]) -> None:
    """Raises :class:`StageFailed` if a folder's files aren't those any more that were loaded."""
    for name, loading in models.items():
        now, before = folder_digests(loading.folder), loading.digests
        if changed := sorted(file for file in {*now, *before} if now.get(file) != before.get(file)):
            raise StageFailed(
                f"{loading.folder}: {', '.join(changed)} changed while {name} was evaluated, so the scores belong to "
                "no version of it. Evaluate again while nothing writes there."
            )
