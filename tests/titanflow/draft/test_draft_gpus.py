"""What a draft makes of GPUs, which the tests choose."""

from collections.abc import Callable
from pathlib import Path

import pytest
from drafts import draft, write_base
from own_files import messages, wiki

from titanflow.common.errors import ConfigError
from titanflow.planning.plan import make_plan

pytestmark = pytest.mark.slow


def test_a_gpu_gets_bfloat16_and_a_model_for_its_hour(tmp_path: Path, gpus: Callable[..., None]) -> None:
    gpus(80)
    made, experiment, _ = draft(text=wiki(tmp_path, 6000))
    training = experiment.modules["pretrain"].config["training"]
    assert training["mixed_precision_param"] == "bfloat16"
    assert made.row == 1024


def test_several_gpus_share_the_work(tmp_path: Path, gpus: Callable[..., None]) -> None:
    gpus(80, 8)
    _, experiment, _ = draft(text=wiki(tmp_path, 6000))
    config = experiment.modules["pretrain"].config
    assert config["launcher"]["nproc_per_node"] == 8
    assert config["training"]["global_batch_size"] % 8 == 0


LARGE = {
    **{"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
    **{"num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False, "max_window_layers": 28},
}
"""Qwen2.5 7B."""


@pytest.mark.parametrize(
    ("gib", "count", "lora", "dtype"), [(200, 1, False, "float32"), (80, 1, True, "float32"), (24, 1, True, "bfloat16")]
)
def test_a_large_base_is_trained_as_the_memory_allows(
    tmp_path: Path, gpus: Callable[..., None], gib: int, count: int, lora: bool, dtype: str
) -> None:
    gpus(gib, count)
    base = write_base(tmp_path / "base", **LARGE)
    _, experiment, _ = draft(chats=messages(tmp_path), base=base)
    config = experiment.modules["sft"].config
    assert (bool(config["lora"]["rank"]), config["training"]["dtype"]) == (lora, dtype)
    assert not [line for line in make_plan("my", runs_here=False).config.warnings if "forecast to take" in line]


def test_a_base_that_fits_nowhere(tmp_path: Path, gpus: Callable[..., None]) -> None:
    gpus(8)
    with pytest.raises(ConfigError, match=r"--base: 7.62 B parameters don't fit"):
        draft(chats=messages(tmp_path), base=write_base(tmp_path / "base", **LARGE))
