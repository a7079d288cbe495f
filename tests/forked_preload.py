"""What a rank imports before it has read its ``run.yaml``; imported once, by the process that ranks are forked from."""

from titan.patches import apply_patches

apply_patches(["late_compile", "cpu_device", "peak_flops"])

import torchtitan.train  # noqa: E402, F401
import transformers  # noqa: E402, F401

import titan.export.export  # noqa: E402
import titan.train.trainer  # noqa: E402, F401
