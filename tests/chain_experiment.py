"""A chain of stages: a pretraining, one that goes on from it, two fine-tunings, an evaluation of all, a publication."""

from __future__ import annotations

from pathlib import Path

from tiny_experiment import write_tiny_experiment

CHAIN = """\
extends: [tiny.yaml]
exp_name: chain
modules:
  mid:
    stage: pretrain
    base: pretrain
    data: text.yaml
    overrides: {training: {seq_len: 48, local_batch_size: 4, steps: 4, mixed_precision_param: float32}, &own
      checkpoint: {interval: 4}, metrics: {log_freq: 1, enable_wandb: false}, lr_scheduler: {warmup_steps: 2}}
  sft: {base: mid}
  sft_b:
    stage: sft
    base: mid
    data: chats.yaml
    overrides: {training: {seq_len: 48, local_batch_size: 4, steps: 4, mixed_precision_param: float32},
      checkpoint: {interval: 4}, metrics: {log_freq: 1, enable_wandb: false}, lr_scheduler: {warmup_steps: 2}}
  evaluate:
    overrides: {models: [pretrain, base, sft, sft_b]}
  publish:
    overrides: {model: sft_b}
""".replace(", &own", ",")


def write_chain(root: Path) -> Path:
    """Writes :data:`CHAIN` and what it needs; returns the folder of configs, whose experiment is ``chain``."""
    configs = write_tiny_experiment(root)
    (configs / "experiments" / "chain.yaml").write_text(CHAIN)
    return configs
