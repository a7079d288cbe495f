"""The outcome of an experiment's nights: the table to look at in the morning.

It is read from the runs' folders, so it needs no server and says the same after the server's database is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from titanflow.common.file_lock import holder
from titanflow.common.quantities import duration
from titanflow.files.own_files import read_mapping, readable
from titanflow.nightly.night import Night
from titanflow.nightly.planning import nights
from titanflow.runs.contract import StageRun
from titanflow.runs.errors import ERROR_FILE, StageError
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import (
    LEFT,
    Comparison,
    EvaluateResult,
    PublishResult,
    TrainResult,
    is_stderr,
    result_of,
)
from titanflow.runs.tracker_record import newest_url

COLUMNS = ("night", "state", "loss", "scores", "against the last", "time", "link or cause")


@dataclass
class NightRow:
    """One night: ``state`` is published, proposed, held back, finished, failed, skipped, running or stopped.

    ``loss`` is the last training stage's, ``scores`` are those of what is published, ``comparisons`` the gates'.
    ``seconds`` is the night's duration. ``link`` leads to the model, of several the last, or to the report; ``cause``
    says why there is none. ``wandb`` is the address of the last training's W&B run. ``against`` says why there are no
    comparisons.
    """

    date: str
    run: str
    state: str
    loss: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    seconds: float | None = None
    link: str = ""
    cause: str = ""
    wandb: str = ""
    against: str = ""
    continues: str = ""

    def as_json(self) -> dict[str, Any]:
        """The row as ``titanflow nights --json`` prints it."""
        return {**asdict(self), "comparisons": [one.model_dump() for one in self.comparisons]}

    def cells(self) -> list[str]:
        """The row as text, one for each of :data:`COLUMNS`."""
        compared = [f"{one.task} {one.difference:+.3g} [{one.low:+.3g}, {one.high:+.3g}]" for one in self.comparisons]
        return [
            self.date if self.run == self.date else f"{self.date} ({self.run})",
            self.state,
            "" if self.loss is None else f"{self.loss:.3f}",
            ", ".join(f"{name} {value:.3g}" for name, value in self.scores.items()),
            ", ".join(compared) or self.against,
            "" if self.seconds is None else duration(self.seconds),
            self.cause or self.link,
        ]


def read_nights(runs: Path) -> list[NightRow]:
    """Every night of an experiment, newest first; ``runs`` is the experiment's folder."""
    return [_row(night, folder) for night, folder in nights(runs)]


def markdown_table(rows: Iterable[NightRow]) -> str:
    """The table for a UI."""
    lines = [[*COLUMNS], ["---"] * len(COLUMNS)]
    lines += [
        [cell.replace("|", "\\|").replace("\n", " ") for cell in [*row.cells()[:-1], _links(row)]] for row in rows
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _links(row: NightRow) -> str:
    """The last cell of a row for a UI: what a browser opens is a link there."""
    model = f"[{row.link}]({row.link})" if _is_address(row.link) else row.link
    wandb = f"[W&B]({row.wandb})" if _is_address(row.wandb) else ""
    return ", ".join(part for part in (row.cause or model, wandb) if part)


def _is_address(text: str) -> bool:
    return text.startswith(("https://", "http://"))


def _row(night: Night, folder: Path) -> NightRow:
    row = NightRow(night.date, night.run, night.state, continues=night.parent.run if night.parent else "")
    row.cause, row.seconds = _first_line(night.message), _seconds(night)
    stages = Manifest.open(folder).stages
    results = {stage: result for stage in stages if (result := result_of(folder / stage)) is not None}
    training = [result for result in results.values() if isinstance(result, TrainResult)]
    row.loss = training[-1].loss if training else None
    evaluations = {stage: result for stage, result in results.items() if isinstance(result, EvaluateResult)}
    published = {stage: result for stage, result in results.items() if isinstance(result, PublishResult)}
    row.scores = _scores(folder, evaluations, list(published))
    gates = [one.gate for one in published.values() if one.gate]
    row.comparisons = [one for gate in gates for one in gate.comparisons]
    row.against = "; ".join(gate.reason for gate in gates if gate.passed)
    for one in published.values():
        row.link = one.pull_request or (one.location if one.status == "published" else row.link)
    row.wandb = newest_url(folder / stage for stage in stages)
    row.link = row.link or (str(folder / "report.html") if (folder / "report.html").exists() else "")
    if not row.state:
        row.state, row.cause = _without_an_end(folder, list(published.values()))
    return row


def _without_an_end(folder: Path, published: list[PublishResult]) -> tuple[str, str]:
    """The state of a night that has no recorded end, which goes on, was killed or was run by hand; and why."""
    if holder(folder):
        return "running", ""
    if published:
        states = [one.status for one in published]
        reasons = [one.gate.reason for one in published if one.gate and not one.gate.passed]
        return next((one for one in LEFT if one in states), states[-1]), "; ".join(reasons)
    stages = Manifest.open(folder).stages
    for stage in stages:
        if (folder / stage / ERROR_FILE).is_file():
            error = StageError.read(folder / stage)
            return "failed", f"{stage}: {error.type}: {_first_line(error.message)}"
    begun = [stage for stage, record in stages.items() if not record.finished]
    # A later run may have made a part alone (`only`), and its plan is the one that is left.
    if (planned := _planned(folder)) and not begun and planned <= set(stages):
        return "finished", ""
    return "stopped", f"in {begun[-1]}, without an error" if begun else "without an error"


def _planned(folder: Path) -> set[str]:
    path = folder / "plan.json"
    plan = read_mapping(path) if path.is_file() else {"stages": []}
    with readable(path):
        return {stage["stage"] for stage in plan["stages"]}


def _scores(folder: Path, evaluations: Mapping[str, EvaluateResult], published: list[str]) -> dict[str, float]:
    """Each task's first metric, for what is published, or else for the model that was evaluated last."""
    runs = [run for stage in published if (run := StageRun.of(folder / stage)) is not None]
    asked = [(run.stage, run.config.get("evaluation") or "", run.config.get("model") or "") for run in runs]
    found: dict[str, float] = {}
    for stage, name, model in asked or [("", next(reversed(list(evaluations)), ""), "")]:
        scores = evaluations[name].scores if name in evaluations else {}
        of_model = scores.get(model) or (list(scores.values())[-1] if scores else {})
        # Several may be published by the same tasks.
        head = f"{stage} " if len(asked) > 1 else ""
        for task, metrics in of_model.items():
            if (first := next((metric for metric in metrics if not is_stderr(metric)), None)) is not None:
                found[f"{head}{task}/{first}"] = metrics[first]
    return found


def _seconds(night: Night) -> float | None:
    if not (night.began and night.ended):
        return None
    return (datetime.fromisoformat(night.ended) - datetime.fromisoformat(night.began)).total_seconds()


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
