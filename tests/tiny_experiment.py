"""An experiment small enough for the tests of flow and deployments: one model of two layers, by the real torchtitan."""

from pathlib import Path

EXPERIMENT = """\
exp_name: tiny
workspace: {workspace}
modules:
  pretrain:
    framework: torchtitan
    config: pretrain.yaml
    model: tiny.yaml
    overrides:
      data: {{kind: text, path: {text}}}
      training: {{seq_len: 32, local_batch_size: 2, global_batch_size: 2, steps: 5, mixed_precision_param: float32}}
      activation_checkpoint: {{mode: none}}
      metrics: {{log_freq: 1, enable_wandb: false}}
"""
MODULE = """\
job: {description: pretrain}
checkpoint: {enable: true, interval: 1000, last_save_model_only: false}
"""
MODEL = """\
model: {name: llama3, flavor: debugmodel, dim: 32, n_layers: 2, n_heads: 2, vocab_size: 300}
"""


def write_tiny_experiment(root: Path) -> Path:
    """Writes a tree of configs with the experiment ``tiny`` and returns it; its workspace is ``runs`` beside it."""
    text = root / "text.txt"
    text.write_text("".join(f"line {number} of a text that nobody has to read\n" for number in range(2000)))
    files = {
        "experiments/tiny.yaml": EXPERIMENT.format(workspace=root / "runs", text=text),
        "modules/pretrain.yaml": MODULE,
        "models/tiny.yaml": MODEL,
    }
    for name, content in files.items():
        path = root / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root / "configs"
