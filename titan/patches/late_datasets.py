"""Has torchtitan import Hugging Face's `datasets` once a training reads text by it."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from titan.patches.patch import Patch, PatchContext

MODULE = "torchtitan.hf_datasets.text_datasets"
BEFORE = ("torchtitan.components.dataloader", "torchtitan.components.tokenizer", "torchtitan.config")
"""What the module imports besides, and which must not meet the stand-ins."""
NAMES = {"datasets": ("Dataset", "load_dataset"), "datasets.distributed": ("split_dataset_by_node",)}


def needed() -> bool:
    """Whether both would still be imported."""
    return MODULE not in sys.modules and "datasets" not in sys.modules


def apply(context: PatchContext) -> None:
    """Imports the module with stand-ins, which its dataset replaces as it is built."""
    if not needed():
        return
    for name in BEFORE:
        importlib.import_module(name)
    if "datasets" in sys.modules:
        return
    for name, things in NAMES.items():
        stand_in = ModuleType(name)
        vars(stand_in).update(dict.fromkeys(things))
        sys.modules[name] = stand_in
    try:
        module = importlib.import_module(MODULE)
    finally:
        for name in NAMES:
            del sys.modules[name]
    dataset = module.HuggingFaceTextDataset
    construct = dataset.__init__

    def construct_with_them(self: Any, *args: Any, **kwargs: Any) -> None:
        for name, things in NAMES.items():
            found = importlib.import_module(name)
            vars(module).update({thing: getattr(found, thing) for thing in things})
        construct(self, *args, **kwargs)

    dataset.__init__ = construct_with_them


PATCH = Patch(
    name="late_datasets",
    target=f"{MODULE}, its imports of datasets",
    what="the same imports, made as the first dataset of text is built",
    why=(
        "datasets imports pandas and pyarrow, a tenth of the CPU time before the first step; rows that are prepared or "
        "random need none of it"
    ),
    versions="==0.2.2",
    needed=needed,
    apply=apply,
)
