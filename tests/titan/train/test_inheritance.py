import dataclasses
import subprocess
import sys

import pytest
from tiny_exports import write_byte_tokenizer

from titan.train.inheritance import check_inheritance, inherited_args
from titanflow.architectures.base import BaseArchitecture, tokenizer_digest
from titanflow.common.errors import ConfigError
from titanflow.data.tokenizer.tokenizer import add_special_tokens
from titanflow.runs.contract import StageRun

ARGS = {
    "dim": 64,
    "n_layers": 4,
    "n_heads": 4,
    "norm_eps": 1e-5,
    "rope_theta": 500000,
    "rope_scaling_args": {"scaling_factor": 8.0},
    "enable_weight_tying": False,
    "attn_type": "sdpa",
    "attn_mask_type": "causal",
    "max_seq_len": 128,
}
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


def rows_of(base, run, *hows):
    """The table's lines, of some kinds or of all."""
    return [str(row) for row in check_inheritance(base, run) if not hows or row.how in hows]


def test_what_is_the_bases_and_what_is_not(tmp_path):
    config = {
        "training": {"local_batch_size": 16, "seq_len": 128},
        "optimizer": {"lr": 1e-3},
        "metrics": {"log_freq": 1},
    }
    run = sft(tmp_path, config, origins={"training.local_batch_size": "/somewhere/configs/modules/sft.yaml:12"})
    assert rows_of(BASE, run, "changed") == [
        "Changed training.local_batch_size: 32 → 16 from sft.yaml:12",
        "Changed training.global_batch_size: 32 → 16 from sft.yaml:12",
    ]
    inherited = rows_of(BASE, run, "inherited")
    assert "Inherited model.n_layers: 4 from pretrain" in inherited
    assert "Inherited model.rope_scaling_args.scaling_factor: 8.0 from pretrain" in inherited
    assert not any("max_seq_len" in line for line in inherited)


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


# torchtitan loads each of these without a word: the tensors have the same shapes, or too many are there.
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_layers", 3),
        ("n_heads", 8),
        ("norm_eps", 1e-6),
        ("rope_theta", 10000),
        ("rope_scaling_args.scaling_factor", 1.0),
        ("enable_weight_tying", True),
    ],
)
def test_what_shapes_cant_protect_is_refused(tmp_path, key, value):
    with pytest.raises(ConfigError, match=f"model.{key}: found {value}, but pretrain has"):
        check_inheritance(BASE, sft(tmp_path, model_overrides={key: value}))


def test_the_attention_backend_is_the_stages_own_and_listed(tmp_path):
    overrides = {"attn_type": "flex", "attn_mask_type": "block_causal", "n_layers": 4}
    run = sft(tmp_path, model_overrides=overrides, origins={"model.attn_type": "/c/sft.yaml:9"})
    assert [line for line in rows_of(BASE, run) if "attn" in line] == [
        "Changed model.attn_type: sdpa → flex from sft.yaml:9",
        "Changed model.attn_mask_type: causal → block_causal",
    ]
    args = inherited_args(BASE, run)
    assert (args["attn_type"], args["n_layers"], args["rope_scaling_args.scaling_factor"]) == ("flex", 4, 8.0)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_dropout_is_the_stages_own_where_the_model_has_it(tmp_path, value):
    base = dataclasses.replace(BASE, model_args={**ARGS, "dropout": 0.1})
    run = sft(tmp_path, model_overrides={"dropout": value})
    assert inherited_args(base, run)["dropout"] == value
    assert [line for line in rows_of(base, run) if "dropout" in line] == [f"Changed model.dropout: 0.1 → {value}"]
    assert inherited_args(base, sft(tmp_path))["dropout"] == 0.1
    assert [line for line in rows_of(base, sft(tmp_path)) if "dropout" in line] == ["Kept model.dropout: 0.1"]


def test_an_argument_that_the_base_lacks_is_no_argument(tmp_path):
    with pytest.raises(ConfigError, match=r"no argument 'dropout'(?s:.*)families that have it: dtf, mod, qwen2, tdtf"):
        check_inheritance(BASE, sft(tmp_path, model_overrides={"dropout": 0.1}))


def test_a_path_of_this_machine_is_not_in_the_table(tmp_path):
    run = sft(tmp_path, {"chat": {"template": "/home/somebody/chat.jinja"}})
    assert "Changed chat.template: unset → chat.jinja" in rows_of(BASE, run)


def test_repeating_the_bases_values_is_allowed(tmp_path):
    run = sft(tmp_path, {"model": {"name": "llama3", "flavor": "debugmodel"}}, model_overrides={"n_layers": 4})
    assert not [line for line in rows_of(BASE, run) if line.startswith("Changed model.")]


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


def test_a_longer_context_needs_its_flag_and_is_recorded(tmp_path):
    run = sft(tmp_path, {"training": {"seq_len": 256, "allow_longer_context": True}})
    longer = "256, longer than any row of pretrain's, by training.allow_longer_context"
    assert f"Changed training.seq_len: 128 → {longer}" in rows_of(BASE, run)
    assert inherited_args(BASE, run)["max_seq_len"] == 256
    assert inherited_args(BASE, run)["rope_scaling_args.scaling_factor"] == 8.0
    assert inherited_args(BASE, sft(tmp_path, {"training": {"seq_len": 64}}))["max_seq_len"] == 128


def tokenizer(folder, text):
    folder.mkdir()
    (folder / "tokenizer.json").write_text(text)
    return folder


def test_another_tokenizer_is_refused_and_a_copy_is_not(tmp_path):
    first, copy, other = (tokenizer(tmp_path / name, text) for name, text in (("a", "1"), ("b", "1"), ("c", "2")))
    base = BaseArchitecture(
        "pretrain", "llama3", "8B", {}, 128, tokenizer=first, tokenizer_digest=tokenizer_digest(first)
    )
    check_inheritance(base, sft(tmp_path, tokenizer=copy))
    check_inheritance(base, sft(tmp_path))
    with pytest.raises(ConfigError, match=r"c is another tokenizer than pretrain's"):
        check_inheritance(base, sft(tmp_path, tokenizer=other))


def test_a_plan_needs_no_torch():
    code = (
        "import sys, titan.train.inheritance, titan.patches; titan.patches.all_patches(); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_tokenizer_may_only_grow_by_the_new_tokens(tmp_path):
    plain = write_byte_tokenizer(tmp_path / "plain")
    grown, other = write_byte_tokenizer(tmp_path / "grown"), write_byte_tokenizer(tmp_path / "other")
    add_special_tokens(grown, ["<|x|>"])
    add_special_tokens(other, ["<|y|>", "<|x|>"])
    args = {**ARGS, "vocab_size": 260}
    base = dataclasses.replace(BASE, model_args=args, tokenizer=plain, tokenizer_digest=tokenizer_digest(plain))
    flag = {"tokenizer": {"new_special_tokens": ["<|x|>"]}}
    run = sft(tmp_path, flag, tokenizer=grown)
    assert [line for line in rows_of(base, run) if "vocab" in line] == [
        "Changed model.vocab_size: 260 → 261, with <|x|>"
    ]
    assert inherited_args(base, run)["vocab_size"] == 261
    # A model with rows to spare keeps its size: shrinking or moving them would break what reads it.
    roomy = dataclasses.replace(base, model_args={**args, "vocab_size": 320})
    assert inherited_args(roomy, run)["vocab_size"] == 320
    for refused in (sft(tmp_path, tokenizer=grown), sft(tmp_path, flag, tokenizer=other)):
        with pytest.raises(ConfigError, match="is another tokenizer than pretrain's"):
            check_inheritance(base, refused)
