import subprocess
import sys

import pytest

from titan.inheritance import BaseArchitecture, check_inheritance, tokenizer_digest
from titanflow.errors import ConfigError
from titanflow.stage import StageRun, TrainResult, write_result

ARGS = {"dim": 64, "n_layers": 4, "rope_scaling_args": {"scaling_factor": 8.0}, "max_seq_len": 128}
BASE = BaseArchitecture(
    stage="pretrain",
    model_name="llama3",
    flavor="debugmodel",
    model_args=ARGS,
    seq_len=128,
    config={"training": {"local_batch_size": 32, "seq_len": 128}, "optimizer": {"lr": 1e-3}},
)


def sft(folder, config=None, **fields):
    return StageRun(stage="sft", experiment="e", run="r", folder=folder, config=config or {}, **fields)


def test_what_is_the_bases_and_what_is_not(tmp_path):
    config = {
        "training": {"local_batch_size": 16, "seq_len": 128},
        "optimizer": {"lr": 1e-3},
        "metrics": {"log_freq": 1},
    }
    run = sft(tmp_path, config, origins={"training.local_batch_size": "/somewhere/configs/modules/sft.yaml:12"})
    table = check_inheritance(BASE, run)
    assert table.changed == ["training.local_batch_size: 32 → 16 from sft.yaml:12"]
    assert "Inherited n_layers=4 from pretrain" in table.inherited
    assert "Inherited rope_scaling_args.scaling_factor=8.0 from pretrain" in table.inherited
    assert not any("max_seq_len" in line for line in table.inherited)
    assert str(table).splitlines() == table.inherited + table.changed


def test_every_change_of_the_architecture_is_named_with_both_values_and_its_place(tmp_path):
    run = sft(
        tmp_path,
        {"model": {"name": "qwen3", "flavor": "debugmodel"}},
        model_overrides={"n_layers": 6, "rope_scaling_args.scaling_factor": 2.0, "dim": 64, "max_seq_len": 999},
        origins={"model.n_layers": "sft.yaml:7"},
    )
    with pytest.raises(ConfigError) as caught:
        check_inheritance(BASE, run)
    problems = {problem.key: problem for problem in caught.value.problems}
    assert set(problems) == {"model.name", "model.n_layers", "model.rope_scaling_args.scaling_factor"}
    assert "found 6, but pretrain has 4" in problems["model.n_layers"].message
    assert problems["model.n_layers"].origin == "sft.yaml:7"
    assert "'qwen3', but pretrain has 'llama3'" in problems["model.name"].message


def test_repeating_the_bases_values_is_allowed(tmp_path):
    run = sft(tmp_path, {"model": {"name": "llama3", "flavor": "debugmodel"}}, model_overrides={"n_layers": 4})
    assert check_inheritance(BASE, run).changed == []


@pytest.mark.parametrize(("seq_len", "refused"), [(127, False), (128, False), (129, True)])
def test_rows_may_not_be_longer_than_the_bases(tmp_path, seq_len, refused):
    run = sft(tmp_path, {"training": {"seq_len": seq_len}}, origins={"training.seq_len": "sft.yaml:3"})
    if not refused:
        check_inheritance(BASE, run)
        return
    with pytest.raises(
        ConfigError, match=r"sft.yaml:3: training.seq_len: found 129, but pretrain was trained with 128"
    ):
        check_inheritance(BASE, run)


def tokenizer(folder, text):
    folder.mkdir()
    (folder / "tokenizer.json").write_text(text)
    return folder


def test_another_tokenizer_is_refused_and_a_copy_is_not(tmp_path):
    first, copy, other = (tokenizer(tmp_path / name, text) for name, text in (("a", "1"), ("b", "1"), ("c", "2")))
    base = BaseArchitecture("pretrain", "llama3", "8B", {}, 128, first, tokenizer_digest(first))
    check_inheritance(base, sft(tmp_path, tokenizer=copy))
    check_inheritance(base, sft(tmp_path))
    with pytest.raises(ConfigError, match=r"c is another tokenizer than pretrain's"):
        check_inheritance(base, sft(tmp_path, tokenizer=other))


def test_a_planned_base_knows_its_overrides(tmp_path):
    planned = StageRun(
        stage="pretrain",
        experiment="e",
        run="r",
        folder=tmp_path,
        config={"model": {"name": "llama3", "flavor": "debugmodel"}, "training": {"seq_len": 64}},
        model_overrides={"n_layers": 2},
    )
    base = BaseArchitecture.planned(planned)
    assert (base.flavor, base.seq_len) == ("debugmodel", 64)
    with pytest.raises(ConfigError, match="found 3, but pretrain has 2"):
        check_inheritance(base, sft(tmp_path, model_overrides={"n_layers": 3}))


def test_a_finished_base_is_read_from_its_folder(tmp_path):
    result = TrainResult(
        stage="pretrain",
        checkpoint=tmp_path / "checkpoint" / "step-7",
        step=7,
        model_name="llama3",
        flavor="debugmodel",
        model_args=ARGS,
        parameters=1,
        seq_len=128,
    )
    write_result(tmp_path, result)
    base = BaseArchitecture.finished(tmp_path)
    assert (base.checkpoint, base.model_args) == (result.checkpoint, ARGS)
    assert "Inherited weights=step-7 from pretrain" in check_inheritance(base, sft(tmp_path)).inherited


def test_a_base_that_has_not_finished_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no result\.json"):
        BaseArchitecture.finished(tmp_path)


def test_a_plan_needs_no_torch():
    code = "import sys, titan.inheritance, titan.patches; titan.patches.all_patches(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
