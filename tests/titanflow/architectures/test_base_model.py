from pathlib import Path

import pytest
from finished_stage import SEQ_LEN, write_outside_base

from titanflow.architectures.base import BaseArchitecture, is_mutable
from titanflow.architectures.outside_base import read_base
from titanflow.common.errors import ConfigError
from titanflow.runs.contract import StageRun
from titanflow.runs.results import PublishResult, write_result


def test_a_finished_base_is_read_from_its_folder(tmp_path: Path) -> None:
    folder = write_outside_base(tmp_path / "pretrain", n_layers=2)
    base = BaseArchitecture.finished(folder)
    assert (base.stage, base.model_name, base.flavor, base.seq_len) == ("pretrain", "llama3", "debugmodel", SEQ_LEN)
    assert (base.model_args["n_layers"], base.overrides) == (2, {"n_layers": 2})
    assert base.checkpoint == folder / "checkpoint" / "step-7"


def test_a_base_that_has_not_finished_is_refused(tmp_path: Path) -> None:
    folder = write_outside_base(tmp_path / "pretrain")
    (folder / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"no result\.json of a training"):
        BaseArchitecture.finished(folder)


def test_a_stage_that_trains_nothing_is_no_base(tmp_path: Path) -> None:
    StageRun(stage="publish", experiment="before", run="main", folder=tmp_path).write()
    write_result(tmp_path, PublishResult(target="folder", location="here"))
    with pytest.raises(ConfigError, match=r"no run\.yaml of a training"):
        BaseArchitecture.finished(tmp_path)


@pytest.mark.parametrize("name", ["run.yaml", "result.json"])
@pytest.mark.parametrize("content", [b"", b"[1]", b"a: [", b"{}", b"\xff"])
def test_a_base_whose_files_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder = write_outside_base(tmp_path / "pretrain")
    (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=r"can't be read|another version"):
        BaseArchitecture.finished(folder)


def test_a_base_without_its_run_file_is_refused(tmp_path: Path) -> None:
    """Its export and its adapters are made from the base's run file, after it has been trained."""
    folder = write_outside_base(tmp_path / "pretrain")
    (folder / "run.yaml").unlink()
    with pytest.raises(ConfigError, match=r"no run\.yaml of a training"):
        read_base(folder)


def test_debug_settings_are_no_part_of_what_weights_mean() -> None:
    base = BaseArchitecture("pretrain", "qwen3", "debugmodel", {"moe_args": experts(True, 8), "dim": 64}, SEQ_LEN)
    assert base.other_arguments({"moe_args": experts(False, 8), "dim": 64}) == {}
    assert base.other_arguments({"moe_args": experts(False, 4)}) == {"moe_args": experts(True, 8)}


def experts(forced: bool, count: int) -> dict[str, object]:
    return {"_debug_force_load_balance": forced, "num_experts": count}


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("attn_type", True),
        ("attn_mask_type", True),
        ("dropout", True),
        ("attn_dropout", True),
        ("moe_args.dropout_p", True),
        ("prior_loss_weight", True),
        ("beta_start", True),
        ("beta_warmup_steps", True),
        ("beta_fast", False),
        ("capacity", False),
        ("n_layers", False),
        ("rope_theta", False),
        ("attn_types", False),
        ("use_dropouts", False),
        ("dropout.n_layers", False),
    ],
)
def test_what_an_sft_may_set(argument: str, expected: bool) -> None:
    assert is_mutable(argument) == expected
