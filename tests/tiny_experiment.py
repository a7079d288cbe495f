"""An experiment with every stage, small enough to run in half a minute, on text and chats that it makes itself."""

import json
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
COLOURS = ("red", "green", "blue", "white", "black")
THINGS = ("stone", "river", "house", "bird", "cloud", "tree", "road", "lamp")

EXPERIMENT = """\
exp_name: tiny
workspace: {root}/runs
modules:
  pretrain:
    framework: torchtitan
    config: pretrain.yaml
    model: tiny.yaml
    data: text.yaml
    validation_data: text_heldout.yaml
    overrides:
      training: {{seq_len: 48, local_batch_size: 4, global_batch_size: 4, steps: 12, mixed_precision_param: float32}}
      optimizer: {{lr: 1e-2, implementation: fused}}
      lr_scheduler: {{warmup_steps: 2}}
      activation_checkpoint: {{mode: none}}
      checkpoint: {{interval: 4}}
      metrics: {{log_freq: 1, enable_wandb: false}}
      validation: {{enable: true, freq: 6, steps: 2, local_batch_size: 4, seq_len: 48}}
  sft:
    framework: torchtitan
    config: sft.yaml
    data: chats.yaml
    overrides:
      training: {{seq_len: 48, local_batch_size: 4, global_batch_size: 4, steps: 8, mixed_precision_param: float32}}
      optimizer: {{lr: 1e-2, implementation: fused}}
      lr_scheduler: {{warmup_steps: 2}}
      activation_checkpoint: {{mode: none}}
      checkpoint: {{interval: 4}}
      metrics: {{log_freq: 1, enable_wandb: false}}
  evaluate:
    framework: lm_eval
    config: evaluate.yaml
    overrides: {{tasks: [tiny_colour], include_path: {root}/configs/evals, examples: 1, wandb: false}}
  publish:
    framework: huggingface_hub
    config: publish.yaml
"""

TASK = """\
task: tiny_colour
dataset_path: json
dataset_kwargs:
  data_files: {{test: {root}/items.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0, chat: true}}
"""


def colour_of(thing: str) -> str:
    """What the chats teach."""
    return COLOURS[THINGS.index(thing) % len(COLOURS)]


def question(thing: str) -> str:
    """How it is asked."""
    return f"What colour is the {thing}?"


def write_tiny_experiment(root: Path) -> Path:
    """Writes texts, chats and configs below ``root``; returns the folder of configs, whose experiment is ``tiny``."""
    sentences = [
        f"The {thing} is {colour_of(thing)}. I saw {number} of them.\n" for number in range(60) for thing in THINGS
    ]
    chats = [
        {
            "messages": [
                {"role": "user", "content": question(thing)},
                {"role": "assistant", "content": colour_of(thing)},
            ]
        }
        for thing in THINGS
        for _ in range(3)
    ]
    items = [{"question": question(thing), "choices": COLOURS, "answer": colour_of(thing)} for thing in THINGS]
    modules = ROOT / "configs" / "modules"
    files = {
        "text.txt": "".join(sentences[:-40]),
        "heldout.txt": "".join(sentences[-40:]),
        "chats.jsonl": "".join(json.dumps(chat) + "\n" for chat in chats),
        "items.jsonl": "".join(json.dumps(item) + "\n" for item in items),
        "configs/experiments/tiny.yaml": EXPERIMENT.format(root=root),
        "configs/evals/tiny_colour.yaml": TASK.format(root=root),
        "configs/models/tiny.yaml": "model: {name: llama3, flavor: debugmodel, dim: 32, n_layers: 2, n_heads: 2, "
        "vocab_size: 320, multiple_of: 32}\n",
        "configs/data/text.yaml": f"kind: text\npath: {root}/text.txt\n",
        "configs/data/text_heldout.yaml": f"kind: text\npath: {root}/heldout.txt\n",
        "configs/data/chats.yaml": f"kind: chat\npath: {root}/chats.jsonl\n",
    }
    for stage in ("pretrain", "sft", "evaluate", "publish"):
        files[f"configs/modules/{stage}.yaml"] = f"extends: [{modules / stage}.yaml]\n"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "configs"


def leave_out_fine_tuning(configs: Path) -> Path:
    """Takes the experiment's sft and evaluation out, so that what was pretrained is published; returns ``configs``."""
    path = configs / "experiments" / "tiny.yaml"
    experiment = yaml.safe_load(path.read_text())
    del experiment["modules"]["sft"], experiment["modules"]["evaluate"]
    experiment["modules"]["publish"]["overrides"] = {"model": "pretrain"}
    path.write_text(yaml.safe_dump(experiment))
    return configs
