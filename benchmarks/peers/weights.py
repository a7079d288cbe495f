"""Exporting and loading a finished stage's model, and the same tensors by safetensors: ``weights.py STAGE OUT PAIRS``.

Both in one process and in turns, so that no import is counted. Prints the seconds of each as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path


def main(stage: Path, out: Path, pairs: int) -> None:
    from safetensors.torch import load_file, save_file

    from titan.export.export import export_checkpoint
    from titan.weights.hf_folder import load_folder, load_tokenizer
    from titan.weights.placement import torch_device, torch_type

    out.mkdir()
    export, file = out / "export", out / "model.safetensors"
    export_checkpoint(stage, export)
    tensors = load_file(export / "model.safetensors")

    def save() -> None:
        save_file(tensors, file)
        with file.open("rb") as written:
            os.fsync(written.fileno())

    def load() -> None:
        load_tokenizer(export)
        load_folder(export, torch_type("float32"), torch_device("cpu"), False)

    sides: dict[str, Callable[[], object]] = {
        "export, titanflow": lambda: export_checkpoint(stage, export),
        "export, safetensors": save,
        "load, titanflow": load,
        "load, safetensors": lambda: [tensor.sum() for tensor in load_file(file).values()],
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    # One round more than is kept.
    for pair in range(pairs + 1):
        for name in list(sides)[:: -1 if pair % 2 else 1] if pair else sides:
            started = time.perf_counter()
            sides[name]()
            if pair:
                found[name].append(time.perf_counter() - started)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
