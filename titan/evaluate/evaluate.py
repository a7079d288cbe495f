"""Evaluates exported folders with lm-evaluation-harness: ``torchrun -m titan.evaluate.evaluate run.yaml``.

The folders are evaluated as they will be published, with lm-eval's transformers backend, and hashed before and after.
Rank 0 runs lm-eval and writes. Every rank computes its share of the batches on its own device
(:mod:`titan.evaluate.ranks`); the results equal those of one process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from titan.evaluate.contamination import look_for_leaks, scored_items
from titan.evaluate.kept import KEPT_FOLDER, KeptScores
from titan.evaluate.lm.backends import Loading, load_lm, load_transformers
from titan.evaluate.lm.cache import CACHE_FOLDER, cached
from titan.evaluate.lm.model import Scored, check_unchanged, evaluate_task, model_loadings
from titan.evaluate.log_scores import log_scores
from titan.evaluate.ranks import Ranks
from titan.evaluate.scores import merge_results, metric_scores, side_by_side, write_results, write_samples
from titan.evaluate.tasks import load_task, prepare_tasks, prepared_items, reference, task_manager
from titan.inference.greedy import record_greedy
from titan.process.interrupt import leave
from titan.process.open_files import allow_all_files
from titan.process.own_job import end_with_job
from titan.process.quiet import quiet_lm_eval, quiet_transformers
from titan.tracking.metrics_file import MetricsFile
from titanflow.common.collector import collector_at_rest
from titanflow.common.errors import ConfigError
from titanflow.config.keys.after_training import Evaluate
from titanflow.config.means.recipe import best_of
from titanflow.evals.asked_tasks import AskedTasks
from titanflow.publish.card.score_table import metrics, score
from titanflow.runs.contract import LIBRARY_LOG, METRICS_FILE, RESULT_FILE, StageRun
from titanflow.runs.errors import ERROR_FILE, log_to_stderr, record_failure
from titanflow.runs.results import EvaluateResult, Greedy, TrackerRecord, TrainResult, result_of, write_result
from titanflow.runs.scores.best import Best
from titanflow.runs.scores.contamination import Contamination
from titanflow.runs.scores.cut import CutPrompts
from titanflow.runs.torchrun import end_with_torchrun

PACKAGES = ("lm_eval", "transformers", "torch", "datasets", "tokenizers")

ALONE = Ranks()
Log = Callable[[StageRun, Evaluate, EvaluateResult], dict[str, TrackerRecord]]
"""Tells the trackers of the scores."""

logger = logging.getLogger("titanflow.evaluate")


def evaluate_stage(run: StageRun, ranks: Ranks = ALONE, log: Log = log_scores) -> EvaluateResult:
    """Evaluates every model on every task; scores and samples go into the stage's folder."""
    started = time.monotonic()
    settings = _settings(run)
    asked, tasks_folder = prepare_tasks(run, settings)
    models = model_loadings(run, settings)
    quiet_transformers()
    quiet_lm_eval()
    manager = task_manager(asked, tasks_folder)
    # Not earlier: rank 0 has now found most mistakes, within a second, and the others are only needed for models.
    ranks.join()
    contamination = look_for_leaks(manager, run, settings)
    collected: dict[str, list[Scored]] = {name: [] for name in models}
    greedy = {}
    progress = MetricsFile(run.folder / METRICS_FILE)
    dropped = contamination.dropped_items if contamination else {}
    kept = KeptScores(run.folder.parent / KEPT_FOLDER / run.stage, asked, run.data.train, settings, dropped)
    total = len(models) * len(settings.tasks)
    with (run.folder / LIBRARY_LOG).open("w", encoding="utf-8") as printed:
        for name, loading in models.items():
            lm = ranks.load(load_lm, loading)
            if settings.backend != "native":
                greedy[name] = _greedy(lm, loading)
            with contextlib.ExitStack() as closing:
                if settings.cache_requests:
                    lm = closing.enter_context(cached(lm, loading, run.folder.parent / CACHE_FOLDER))
                for task in settings.tasks:
                    scored = kept.of(task, loading)
                    if scored is None:
                        given = (settings.num_fewshot, settings.seed, settings.gen_kwargs, asked.of_ones_own)
                        loaded = load_task(manager, task, *given)
                        items = scored_items(contamination, loaded["tasks"])
                        scored = evaluate_task(lm, loaded, task, settings, printed, items)
                        scored = kept.keep(task, loading, scored)
                    collected[name].append(scored)
                    done = sum(map(len, collected.values()))
                    _report(progress, done, total, name, task, scored)
            # Two models may not fit into memory.
            del lm
            _keep(run.folder, name, loading, collected[name], settings)
    ranks.end()
    try:
        check_unchanged(models)
        seconds = time.monotonic() - started
        result = _result(run, settings, asked, models, collected, greedy, contamination, seconds)
        result.trackers = log(run, settings, result)
        return result
    finally:
        # The scores are in the result now, or the model changed while they were computed.
        kept.forget()


def _greedy(lm: Any, loading: Loading) -> Greedy:
    if loading.backend == "hf" and loading.dtype == "float32":
        return record_greedy(lm.model, lm.tokenizer)
    return record_greedy(*load_transformers(replace(loading, dtype="float32")))


def _settings(run: StageRun) -> Evaluate:
    try:
        return Evaluate(**run.config)
    except TypeError as error:
        raise ConfigError(f"{run.folder}: the evaluate module's config can't be read: {error}") from None


def _report(progress: MetricsFile, done: int, total: int, model: str, task: str, scored: Scored) -> None:
    own = scored.results["results"].get(task) or {}
    scores, samples = metric_scores(own), scored.results["n-samples"].get(task, {}).get("effective")
    shown = ", ".join(f"{metric} {score(scores, metric, samples)}" for metric in metrics(scores))
    logger.info("%d/%d %s %s: %s (%.1f s)", done, total, model, task, shown or "done", scored.seconds)
    for name, cut in scored.cut.items():
        logger.warning("%s %s: %s", model, name, CutPrompts(**cut))
    progress.append(
        {"step": done, "steps": total, "model": model, "task": task, "scores": scores, "seconds": scored.seconds}
    )


def _keep(folder: Path, name: str, loading: Loading, scored: list[Scored], settings: Evaluate) -> None:
    config = {
        "model": str(loading.folder),
        "backend": loading.backend,
        "dtype": loading.dtype,
        "batch_size": loading.batch_size,
        "limit": settings.limit,
        "bootstrap_iters": settings.bootstrap_iters,
        "seeds": _seeds(settings),
        "versions": _versions(),
    }
    write_results(folder, name, merge_results([item.results for item in scored], config))
    if settings.log_samples:
        for item in scored:
            write_samples(folder, name, item.results["samples"])


def _result(
    run: StageRun,
    settings: Evaluate,
    asked: AskedTasks,
    models: Mapping[str, Loading],
    collected: Mapping[str, list[Scored]],
    greedy: dict[str, Greedy],
    contamination: Contamination | None,
    seconds: float,
) -> EvaluateResult:
    first = [item.results for item in next(iter(collected.values()))]
    scores = {
        name: {task: metric_scores(values) for item in scored for task, values in item.results["results"].items()}
        for name, scored in collected.items()
    }
    given = {
        name: {task: items for item in scored for task, items in item.answers.items()}
        for name, scored in collected.items()
    }
    items = prepared_items(run.data.train)
    return EvaluateResult(
        stage=run.stage,
        scores=scores,
        folders={name: loading.folder for name, loading in models.items()},
        digests={name: dict(loading.digests) for name, loading in models.items()},
        backend=settings.backend,
        greedy=greedy,
        samples={task: count["effective"] for results in first for task, count in results["n-samples"].items()},
        n_shot={task: int(count) for results in first for task, count in results["n-shot"].items()},
        task_versions={task: str(value) for results in first for task, value in results["versions"].items()},
        higher_is_better={
            task: {metric: better for metric, better in metrics.items() if better is not None}
            for results in first
            for task, metrics in results["higher_is_better"].items()
        },
        cut={
            name: cut
            for name, scored in collected.items()
            if (cut := {task: CutPrompts(**found) for item in scored for task, found in item.cut.items()})
        },
        best=dict(_best(run)),
        reference=reference(items, asked),
        part=items.get("part", ""),
        left_out=items.get("dropped", {}),
        contamination=contamination,
        examples=side_by_side(given, settings.examples),
        limit=settings.limit,
        seeds=_seeds(settings),
        versions=_versions(),
        seconds=seconds,
    )


def _best(run: StageRun) -> Iterator[tuple[str, Best]]:
    """Which checkpoint each model is that is the best of a training, as it was made for this evaluation."""
    for name in best_of(run.config):
        made = result_of(run.stages[name])
        if isinstance(made, TrainResult) and made.best is not None:
            yield name, made.best


def _seeds(settings: Evaluate) -> dict[str, int]:
    return dict.fromkeys(("random", "numpy", "torch", "fewshot"), settings.seed)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


@contextlib.contextmanager
def _errors_written(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Writes ``error.json`` for an exception, and ends the process with its exit status."""
    try:
        yield
    except Exception as error:
        code = record_failure(folder, error, ranks.rank)
        if ranks.size > 1:
            # The other ranks wait for this one; once it has ended, torchrun ends them.
            leave(code)
        sys.exit(code)


def main(run_file: Path, log: Log = log_scores) -> None:
    """Runs the stage of a ``run.yaml``; writes ``result.json``, or ``error.json`` and exits with status 1 or 2."""
    log_to_stderr()
    end_with_torchrun()
    end_with_job(run_file.parent)
    allow_all_files()
    ranks = Ranks.of_environment()
    run = StageRun.read(run_file)
    if ranks.rank != 0:
        with _errors_written(run.folder, ranks), collector_at_rest():
            serve(ranks)
        return
    for name in (ERROR_FILE, RESULT_FILE, METRICS_FILE):
        (run.folder / name).unlink(missing_ok=True)
    # At rest until a model is loaded.
    with _errors_written(run.folder, ranks), collector_at_rest():
        result = evaluate_stage(run, ranks, log)
        write_result(run.folder, result)
        logger.info("%d models on %d tasks in %.1f s", len(result.folders), len(result.n_shot), result.seconds)


def serve(ranks: Ranks) -> None:
    # Everything needed is on the disk by now.
    os.environ["HF_HUB_OFFLINE"] = "1"
    ranks.join()
    quiet_transformers()
    quiet_lm_eval()
    ranks.serve(load_lm)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # Everything is written; an orderly exit of the libraries would take a second.
    leave(0)
