"""The card's tables and figures: results, training, data, digests. Every cell is markdown that is safe to show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from titanflow.config.keys.training import RENDERED_KINDS
from titanflow.publish.bundle import WEIGHTS, Bundle
from titanflow.publish.card.markdown import code, plain
from titanflow.publish.card.score_table import MISSING, LastPublished, columns, score_rows
from titanflow.publish.card.training_data import TrainingData
from titanflow.publish.gate.figures import outcome
from titanflow.publish.lineage import EvaluatedStage, Lineage, TrainedStage, hyperparameters
from titanflow.runs.results import GateDecision, GgufFile

LONGEST_ANSWER = 400
"""Characters of a sample answer that the card shows."""

Table = list[list[str]]
"""The header's cells first, then a list for each row."""


def results_table(evaluation: EvaluatedStage, last: LastPublished | None) -> Table:
    """A row for each task and metric, a column for each model: base | sft | what was published last."""
    models = [plain(name) for name in columns(evaluation.result, evaluation.model)]
    before = [f"last published ({plain(last.run)})"] if last else []
    rows = [
        [
            plain(row.task),
            plain(row.version),
            str(row.n_shot),
            str(row.samples),
            plain(row.metric) + row.arrow,
            *(str(score) for score in row.scores),
        ]
        for row in score_rows(evaluation.result, evaluation.model, last)
    ]
    return [["task", "version", "n-shot", "samples", "metric", *models, *before], *rows] if rows else []


def gate_table(gate: GateDecision) -> Table:
    rows = [
        [plain(one.task), plain(one.metric), f"bound {one.bound:g}", f"{one.value:.4g}", outcome(one.passed)]
        for one in gate.thresholds
    ]
    rows += [
        [
            plain(one.task),
            plain(one.metric),
            f"{one.pairs:,} pairs",
            f"{one.difference:+.4f} ({_bound(one.low)} to {_bound(one.high)})",
            outcome(one.passed),
        ]
        for one in gate.comparisons
    ]
    return [["task", "metric", "compared with", "value", ""], *rows] if rows else []


def training_table(stages: tuple[TrainedStage, ...]) -> Table:
    rows: dict[str, list[str]] = {}
    for stage in stages:
        result, settings = stage.result, hyperparameters(stage)
        values = {
            "data": stage.data,
            "steps": result.step,
            "tokens": result.tokens,
            "sequence length": result.seq_len,
            "rows a step": settings["batch"],
            "optimizer": settings["optimizer"],
            "peak learning rate": settings["lr"],
            "warm-up steps": settings["warmup_steps"],
            "seed": settings["seed"],
            "preferences": settings["prefer"] and "{loss}, beta {beta:g}".format(**settings["prefer"]),
            "LoRA": settings["lora"] and "rank {rank}, alpha {alpha:g}, merged".format(**settings["lora"]),
            "trained parameters": result.trainable_parameters,
            "loss, first (nats)": result.first_loss,
            "loss, last (nats)": result.loss,
            "loss on held-out rows": result.validation_loss,
            "seconds": round(result.seconds),
            "tokens/s": result.tokens_per_second and round(result.tokens_per_second),
        }
        for label, value in values.items():
            rows.setdefault(label, []).append(number_text(value))
    filled = [[label, *values] for label, values in rows.items() if any(value != MISSING for value in values)]
    return [["", *(plain(stage.name) for stage in stages)], *filled]


def data_table(data: list[TrainingData]) -> Table:
    rows = [
        [
            plain(one.stage),
            one.part,
            plain(one.name),
            number_text(one.documents),
            number_text(one.rows),
            number_text(one.tokens),
            number_text(one.trained_tokens) if one.kind in RENDERED_KINDS else "all",
            plain(", ".join(f"{count:,} {reason}" for reason, count in one.dropped.items())),
        ]
        for one in data
    ]
    header = ["stage", "", "data", "documents", "rows", "tokens", "trained tokens", "left out"]
    return [header, *rows] if rows else []


def gguf_table(files: Mapping[str, GgufFile]) -> Table:
    """A row for each file for llama.cpp, with what its proof found."""
    rows = [
        [
            code(name),
            f"{one.agreement:.1%} of {one.positions}",
            f"{one.mean_kl:.1g}",
            f"{one.largest_difference:.1g}",
            f"{one.greedy_tokens} of {one.positions}",
        ]
        for name, one in files.items()
    ]
    header = ["file", "same likeliest token", "mean KL (nats)", "largest difference of a probability", "same by itself"]
    return [header, *rows] if rows else []


def answers_table(evaluation: EvaluatedStage) -> Table:
    """Questions, what is expected, and each model's answer, in the order of the columns of the scores."""
    examples, models = evaluation.result.examples, columns(evaluation.result, evaluation.model)
    if not examples:
        return []
    names = [*(name for name in examples[0] if name not in ("task", *models)), *models]
    rows = [[plain(example.get(name, ""), LONGEST_ANSWER) for name in names] for example in examples]
    return [[plain(name) for name in names], *rows]


def weight_digests(lineage: Lineage, bundle: Bundle) -> list[tuple[str, str, str]]:
    """Stage, file and SHA-256 of each export's weights: the published ones and those they came from."""
    published = {name: entry.sha256 for name, entry in bundle.items()}
    return [
        (stage.name, name, sha256)
        for stage in lineage.trained
        for name, sha256 in (published if stage.name == lineage.model else stage.result.export_digests).items()
        if WEIGHTS.fullmatch(name)
    ]


def export_check(figures: Mapping[str, float]) -> str:
    """The figures of a training stage's ``parity`` as half a sentence, without those that weren't measured."""
    found = []
    if "relative_error" in figures:
        found.append(f"its logits differ by at most {figures['relative_error']:.2g} of the largest")
    if "argmax_agreement" in figures:
        at = f" of {figures['positions']:,.0f} positions" if "positions" in figures else " of the positions"
        found.append(f"the likeliest token is the same at {_share(figures['argmax_agreement'])}{at}")
    if "greedy_agreement" in figures:
        of = f" of {figures['greedy_tokens']:,.0f}" if "greedy_tokens" in figures else ""
        found.append(f"it generates the same tokens ({_share(figures['greedy_agreement'])}{of})")
    return ", ".join(found)


def number_text(value: Any) -> str:
    """A cell: counts with thousands separators, losses to four digits, learning rates as written."""
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, float):
        return f"{value:.4f}" if value >= 0.01 else f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else plain(value)


def markdown_table(table: Table) -> str:
    """The table in markdown; empty without rows. Its cells are markdown already."""
    if not table:
        return ""
    lines = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bound(value: float) -> str:
    return f"{value:+.4f}" if math.isfinite(value) else "∞"


def _share(share: float) -> str:
    return "all" if share == 1 else f"{share:.1%}"
