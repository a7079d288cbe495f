"""What a fine-tuning stage trains on, row by row: ``titanflow masks``.

The rows are prepared as a run would prepare them, into the same workspace, and read from there. So what is shown is
what is trained on.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from titanflow.common.console import uncut
from titanflow.common.errors import ConfigError, DataError, Problem, StageFailed
from titanflow.config.keys.chat_columns import SIDES
from titanflow.config.keys.training import RENDERED_KINDS
from titanflow.config.mixture import row_kinds
from titanflow.planning.stage_plan import Plan
from titanflow.runs.contract import PREPARE, StageRun

if TYPE_CHECKING:
    from titanflow.data.dataset_info import DatasetInfo
    from titanflow.data.prepared import PreparedRows

TRAINED, CONTEXT = "bold green", "dim"
OPEN, CLOSE = "⟦", "⟧"
"""The marks around trained text, for output without colours."""


@dataclass(frozen=True)
class MaskedRow:
    """One conversation, unpacked: ``labels[i]`` is the target of ``input_ids[i]``, -100 where nothing is trained.

    ``side`` says which one of a pair it is, chosen or rejected; empty for a chat.
    """

    source: str
    input_ids: list[int]
    labels: list[int]
    side: str = ""

    @property
    def name(self) -> str:
        """Where it stands, and its side."""
        return f"{self.source}, {self.side}" if self.side else self.source

    def as_json(self) -> dict[str, Any]:
        side = {"side": self.side} if self.side else {}
        return {"source": self.source, **side, "input_ids": self.input_ids, "labels": self.labels}

    @property
    def trained(self) -> list[bool]:
        """For each token, whether the model is trained to write it."""
        return [False, *(label >= 0 for label in self.labels[:-1])]

    def spans(self, backend: Any) -> Iterator[tuple[bool, str]]:
        """Its text, trained and untrained parts in turn, decoded by a tokenizer's ``backend``."""
        pairs = zip(self.input_ids, self.trained, strict=True)
        for is_trained, run in itertools.groupby(pairs, lambda pair: pair[1]):
            yield is_trained, backend.decode([token for token, _ in run], skip_special_tokens=False)


class Masks:
    """The prepared conversations of one training module."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        from titanflow.data.dataset_info import read_info

        info = read_info(folder)
        self.tokenizer = tokenizer
        folders = info.mixture.get("members", {"": folder})
        self.infos: list[tuple[Path, DatasetInfo]] = [(Path(path), read_info(path)) for path in folders.values()]
        self.infos = [(path, info) for path, info in self.infos if info.kind in RENDERED_KINDS]

    def _sums(self, name: str) -> dict[str, int]:
        from titanflow.data.files.file_counts import totals

        return totals(getattr(info, name) for _, info in self.infos)

    def rows(self, limit: int | None = None) -> Iterator[MaskedRow]:
        """The first ``limit`` conversations or pairs of each source, or all, in the source's order.

        A pair has two rows, its chosen side first.
        """
        from titanflow.data.files.sources import SourceFile
        from titanflow.data.prepared import PLACES_FILE, PreparedRows, mapped

        for folder, info in self.infos:
            prepared: PreparedRows = PreparedRows.open(folder, info.seq_len or 0)
            files = [SourceFile(file["name"], file["unit"]) for file in info.files]
            places = mapped(folder, PLACES_FILE)
            for document in range(info.documents)[:limit]:
                number, place = map(int, places[document])
                names = SIDES if info.kind == "pairs" else ("",)
                for side, (tokens, labels) in zip(names, prepared.sides(document), strict=True):
                    yield MaskedRow(files[number].origin(place), tokens.tolist(), labels.tolist(), side)

    def as_json(self, limit: int | None) -> dict[str, Any]:
        """The output of ``--json``; ``limit`` applies to each source."""
        rows = [row.as_json() for row in self.rows(limit)]
        return {"rows": rows, **{name: self._sums(name) for name in ("dropped", "unread", "notes")}}

    def render(self, limit: int) -> RenderableType:
        from titanflow.data.tokenizer.tokenizer import described_tokenizer

        backend = described_tokenizer(self.tokenizer)
        parts: list[RenderableType] = []
        for row in self.rows(limit):
            trained = row.trained
            parts.append(Text(f"{row.name}   {len(trained)} tokens, {sum(trained)} trained", style="bold"))
            text = Text()
            for is_trained, said in row.spans(backend):
                text.append(f"{OPEN}{said}{CLOSE}" if is_trained else said, TRAINED if is_trained else CONTEXT)
            parts += [text, Text()]
        ends = ((info, [backend.id_to_token(end) or "" for end in info.ends_of_turn]) for _, info in self.infos)
        return Group(*parts, *(counts(info, named) for info, named in ends))


def counts(info: DatasetInfo, ends_of_turn: list[str]) -> Table:
    """The counts of one source: prepared and left out. The most frequent end of turn comes first."""
    table = Table(box=None, pad_edge=False, show_header=False)
    what = "pairs" if info.kind == "pairs" else "conversations"
    packed = f"{info.rows:,} rows of {info.seq_len:,}, {info.fill:.1%} filled"
    values = {
        info.name: f"{info.documents:,} {what}, {info.tokens:,} tokens, {info.trained_tokens:,} trained",
        "packing": f"{info.packing}: {packed}" if info.packing else f"none: {packed}",
        "template": f"{info.template}; {info.turns} turns; each ends with {' or '.join(ends_of_turn)}",
        "proof": f"the mask of {info.proved:,} of {info.documents:,} {what} is proved",
    }
    for name, value in values.items():
        table.add_row(name, Text(value))
    for reason, count in info.dropped.items():
        places = ", ".join(info.dropped_rows.get(reason, []))
        table.add_row("left out", Text(f"{count:,} {reason}: {places}{', …' if count > 5 else ''}"))
    for name, count in info.unread.items():
        table.add_row("read by nothing", Text(f"{count:,} × {name}"))
    for note, count in info.notes.items():
        table.add_row("note", Text(f"{note}, in {count:,} rows"))
    return uncut(table)


def prepare_masks(plan: Plan, module: str | None = None) -> Masks:
    """Prepares the conversations of a module, as a run would, and opens them.

    Args:
        plan: the experiment's plan.
        module: the name of one of its modules; None for the first that trains on conversations.

    Raises:
        ConfigError: the module trains on no conversations.
        DataError: its conversations can't be used, or a mask fails its proof; stderr has the problems.
        StageFailed: preparing failed otherwise; stderr says why.
    """
    run = _training_run(plan, module)
    planned = plan.stage(PREPARE)
    assert planned is not None
    assert run.data.train is not None
    config = planned.run.config
    wanted = {str(run.data.train)}
    for dataset in config["datasets"]:
        if dataset["folder"] in wanted:
            wanted |= set(dataset.get("members", {}).values())
    datasets = [dataset for dataset in config["datasets"] if dataset["folder"] in wanted]
    # Rows need only the base's tokenizer, not its weights.
    config = {**config, "weights": [], "datasets": datasets}
    Path(config["workspace"]).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        stage = StageRun(
            stage=PREPARE, kind=PREPARE, experiment=plan.experiment, run=plan.run, folder=Path(folder), config=config
        )
        done = subprocess.run([sys.executable, "-m", "titanflow.data.prepare", str(stage.write())], check=False)
    if done.returncode:
        # The process has printed them; a repeated list of rows is hard to read.
        told = "the conversations could not be prepared; the lines above say why"
        raise DataError(told) if done.returncode == DataError.exit_code else StageFailed(told)
    assert run.tokenizer is not None
    return Masks(run.data.train, run.tokenizer)


def _training_run(plan: Plan, module: str | None) -> StageRun:
    modules = plan.config.modules
    for one in modules.values() if module is None else [modules[module]]:
        planned, kinds = plan.stage(one.name), row_kinds(one.config.get("data") or {})
        if one.trains and planned is not None and planned.run.data.train is not None and kinds & {*RENDERED_KINDS}:
            return planned.run
    found = f"{module or plan.experiment} trains on no conversations"
    raise ConfigError(Problem(found, "--module", expected="a module whose data has kind: chat or pairs"))
