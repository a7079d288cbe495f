"""What of scipy is imported with a language model of transformers."""

import subprocess
import sys

PROGRAM = """
import sys
from titan.process.lean_transformers import leave_out_scipy

leave_out_scipy()
leave_out_scipy()
from transformers import LlamaForCausalLM, utils
print("scipy.optimize" in sys.modules, utils.is_scipy_available())
import torch
from transformers import LlamaConfig
size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **size))
ids = torch.arange(8)[None]
print(bool(model(ids, labels=ids).loss > 0), "scipy.optimize" in sys.modules)
"""


def test_a_model_is_imported_without_scipy_and_whoever_asks_later_finds_it():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True", "False"]
