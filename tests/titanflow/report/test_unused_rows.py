"""What the summary says of rows that nothing was trained on."""

from pathlib import Path
from typing import Any

import pytest
from finished_stage import finish_training

from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.report.unused_rows import unused_rows
from titanflow.runs.contract import CUT, PreparedData, StageRun
from titanflow.runs.results import PrepareResult, TrainResult, read_result, write_result


def told(folder: Path, facts: dict[str, Any], stage: str = "sft", part: str = "train") -> list[tuple[str, str]]:
    """Each line with its colour, for a training of 10 steps of 8 rows."""
    rows = folder / "data" / "it"
    run = StageRun(
        stage=stage,  # type: ignore[arg-type]
        experiment="tiny",
        run="main",
        folder=folder / stage,
        config={"training": {"global_batch_size": 8}},
        data=PreparedData(**{part: rows}),
    )
    run.write()
    finish_training(run.folder, stage=stage)
    write_result(folder / "prepare", PrepareResult(datasets={str(rows): {"name": "it", **facts}}))
    result = read_result(run.folder)
    assert isinstance(result, TrainResult)
    plan = Plan("tiny", "main", folder, [StagePlan(run.stage, "RUN", "new", run)], config=None)  # type: ignore[arg-type]
    lines = unused_rows(plan, [result.model_copy(update={"step": 10})], "tiny --run 'a b'")
    return [(line.plain, str(line.style)) for line in lines]


MASKS = "(titanflow masks tiny --run 'a b' --module sft)"


@pytest.mark.parametrize(
    ("dropped", "line", "style"),
    [
        (
            {"too_long": 660, "malformed": 3},
            "sft: 66% of the rows of it (trained on) were left out: 660 too_long, 3 malformed; raise training.seq_len "
            "or set data.overlong",
            "yellow",
        ),
        ({"too_long": 37}, "sft: 37 of 374 rows of it (trained on) were left out: 37 too_long", "dim"),
        ({"malformed": 38}, "sft: 10% of the rows of it (trained on) were left out: 38 malformed", "yellow"),
    ],
)
def test_rows_that_were_left_out(tmp_path: Path, dropped: dict[str, int], line: str, style: str) -> None:
    assert told(tmp_path, {"kind": "chat", "documents": 337, "dropped": dropped}) == [(f"{line} {MASKS}", style)]


@pytest.mark.parametrize(("cut", "style"), [(10, "dim"), (11, "yellow")])
def test_conversations_that_were_cut(tmp_path: Path, cut: int, style: str) -> None:
    facts = {"kind": "chat", "documents": 100, "seq_len": 48, "notes": {CUT: cut, "another": 5}}
    line = f"sft: {cut} of 100 rows of it (trained on) were cut to 48 tokens {MASKS}"
    assert told(tmp_path, facts) == [(line, style)]


def test_masks_show_no_text_and_no_held_out_rows(tmp_path: Path) -> None:
    look = f"({tmp_path / 'data' / 'it' / 'dataset.json'})"
    facts = {"kind": "text", "documents": 99, "dropped": {"blank": 1}}
    ((line, _),) = told(tmp_path, facts, "pretrain")
    assert line == f"pretrain: 1 of 100 rows of it (trained on) were left out: 1 blank {look}"
    ((line, _),) = told(tmp_path, facts | {"kind": "chat"}, part="validation")
    assert line == f"sft: 1 of 100 rows of it (held out) were left out: 1 blank {look}"


@pytest.mark.parametrize(("rows", "lines"), [(80, 0), (81, 1), (None, 0)])
def test_rows_that_no_step_reached(tmp_path: Path, rows: int | None, lines: int) -> None:
    found = told(tmp_path, {"kind": "text", "documents": 5, "rows": rows}, "pretrain")
    expected = [("pretrain: 80 of 81 rows of it were reached (99%); training.steps: 11 reaches all", "dim")]
    assert found == expected[:lines]
