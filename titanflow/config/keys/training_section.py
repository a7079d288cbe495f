"""The keys inside torchtitan's own section ``training``; the string below a field is its documentation."""

# Types are no strings here: torchtitan merges the fields into a class of its own, whose module has no Literal.
from dataclasses import dataclass
from typing import Literal


@dataclass
class TrainingAdditions:
    """This project's keys inside torchtitan's own ``training`` section."""

    mixed_precision_param: Literal["auto", "bfloat16", "float32"] = "bfloat16"
    """The number format of matrix products, by autocast or FSDP; the weights have `training.dtype`. `auto` is what the
    stage's device is fastest with, settled in the plan, and a stage keeps what it was begun with."""
    mock_data: bool = False
    """Random tokens in place of data: to measure speed or to try a configuration."""
    group_by_length: bool = False
    """Make batches of conversations of similar lengths, so that little of them is padding: the rows of 50 batches are
    sorted by length, as transformers' key of this name does, and the batches then shuffled."""
    skip_rows: int = 0
    """Rows to skip at the beginning of the data's order, because the model that this training continues has seen them;
    streamed data has no such order."""
    ema: float | None = None
    """Keep the exponential mean of the weights, in which each step counts this many times as much as the next (0.999),
    and validate, export and hand on that mean; unset, the last step's weights."""
    loss_chunks: int = 1
    """Compute output head and loss in so many parts of a microbatch's tokens: less memory, since only one part's logits
    are there at once. Value and gradients are the same, but for rounding."""
    allow_longer_context: bool = False
    """Allow longer rows than the base was trained with: its weights have never seen such positions; RoPE unchanged."""
