"""A flow in a terminal: what a person sees when it ends by itself, by ^C and by a failure."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from terminal import Terminal
from watching import PATIENCE, wait_for

HERE = Path(__file__).parents[1]
# What `titanflow run` does with a plan, in a process of its own.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import small_plan
from pathlib import Path
folder, program = Path(sys.argv[1]), sys.argv[2]
first = "    folder = Path(sys.argv[1])\\n"
warns = "    print('WARNING it is late', flush=True)\\n" * 2
source = getattr(small_plan, program).replace(first, first + warns)
plan = small_plan.small_plan(folder, prepare=small_plan.PREPARES, pretrain=source)
from flows.live.live_view import live_view
from titanflow.common.errors import TitanflowError
try:
    with live_view(plan):
        from flows import local_run, pretrain_sft
        local_run.INTERRUPTED_SECONDS = local_run.FLUSH_SECONDS = {PATIENCE}
        pretrain_sft.make_plan = lambda *arguments: plan
        pretrain_sft.run_folder = lambda *arguments: folder / "run"
        local_run.run_flow("tiny")
except TitanflowError as error:
    sys.exit(str(error))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def start(tmp_path: Path, api: str) -> Iterator[Callable[..., Terminal]]:
    terminals = []

    def start(program: str, **options: int) -> Terminal:
        script = tmp_path / "program.py"
        script.write_text(PROGRAM)
        env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        terminal = Terminal(
            [sys.executable, str(script), str(tmp_path), program],
            {**env, "TERM": "xterm-256color", "PREFECT_HOME": str(tmp_path / "home"), "PREFECT_API_URL": api},
            **options,
        )
        terminals.append(terminal)
        return terminal

    yield start
    for terminal in terminals:
        terminal.close()


def test_a_finished_run_leaves_its_stages_below_whole_log_lines(start: Callable[..., Terminal]) -> None:
    terminal = start("TRAINS")
    assert terminal.wait() == 0, terminal.screen
    lines = str(terminal.screen).rstrip().splitlines()
    assert re.fullmatch(r"tiny / main  \d+:\d\d", lines[-4])
    assert re.fullmatch(r"✓ prepare     \d+:\d\d  0 datasets, 0 tokens", lines[-3])
    assert re.fullmatch(r"✓ pretrain    \d+:\d\d  step 4, loss 4", lines[-2])
    assert lines[-1] == "  1 warning in pretrain/pretrain.log"
    log = lines[:-4]
    # The first line was shown as it came, above the log's next line; single steps aren't.
    assert log.count("warning: pretrain: it is late") == 1
    log.remove("warning: pretrain: it is late")
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} \| ", line) for line in log), log
    assert any("pretrain finished: step 4, loss 4" in line for line in log)
    assert not any("pretrain step" in line for line in log)
    assert terminal.screen.has_cursor


def test_control_c_leaves_the_screen_in_order(start: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = start("WAITS", columns=40)
    terminal.wait_for("step 1 of 4")
    assert terminal.screen.has_cursor
    family = psutil.Process(terminal.process.pid).children(recursive=True)
    wait_for(lambda: (tmp_path / "run/pretrain/pid").exists(), "the stage")
    terminal.type("\x03")
    assert terminal.wait() == 130, terminal.screen
    lines = str(terminal.screen).rstrip().splitlines()
    assert re.fullmatch(r"■ pretrain    \d+:\d\d  step 1 of 4", lines[-2]), lines
    assert len([line for line in lines if "pretrain   " in line]) == 1
    assert terminal.screen.has_cursor
    assert (tmp_path / "run/pretrain/saved").exists()
    assert not any(child.is_running() for child in family)


def test_a_failed_stage_is_marked_and_told_below(start: Callable[..., Terminal]) -> None:
    terminal = start("FAILS")
    assert terminal.wait() == 1
    text = str(terminal.screen)
    marked, told = text.index("✗ pretrain"), text.index("loss is nan")
    assert marked < told
    assert "Traceback" not in text
    assert text.count("loss is nan") == 1


@pytest.mark.parametrize(
    ("entry", "is_told"), [("flows.local_run", False), ("deployments.serve", False), ("prefect", True)]
)
def test_prefect_s_notice_of_its_telemetry_does_not_come_through(tmp_path: Path, entry: str, is_told: bool) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "DO_NOT_TRACK"}
    terminal = Terminal([sys.executable, "-c", f"import {entry}"], {**kept, "PREFECT_HOME": str(tmp_path)})
    try:
        assert terminal.wait() == 0
        assert ("anonymous usage data" in str(terminal.screen)) is is_told
        assert str(terminal.screen).strip() == "" or is_told
    finally:
        terminal.close()
