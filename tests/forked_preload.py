"""What a rank imports, before it has read its ``run.yaml`` or after; imported once, by the process that ranks are
forked from. None of it is garbage, so no rank looks through it.
"""

import gc
import importlib

from titan.models.registry import MODEL_PATCHES
from titan.patches import apply_patches

# What a patch changes may be imported only after it.
apply_patches([*MODEL_PATCHES, "peak_flops"])

import lm_eval.evaluator  # noqa: E402, F401
import transformers  # noqa: E402, F401

import titan.train.train_spec  # noqa: E402
import titan.train.trainer  # noqa: E402
from titan.process.lean_transformers import leave_out_scipy  # noqa: E402

leave_out_scipy()
for module in ("llama.modeling_llama", "qwen2.modeling_qwen2", "auto.modeling_auto", "auto.tokenization_auto"):
    importlib.import_module(f"transformers.models.{module}")

import titan.evaluate.evaluate  # noqa: E402
import titan.evaluate.lm.lm  # noqa: E402, F401

gc.collect()
gc.freeze()
