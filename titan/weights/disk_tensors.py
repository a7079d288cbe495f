"""Tensors whose bytes lie in files: a model larger than memory can be loaded, compared and written.

The kernel writes their pages out where memory is short, and reads them back. A file loses its name as soon as it is
mapped, so nothing is left behind, however the process ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from titanflow.common.errors import StageFailed

DRAWS = frozenset({torch.Tensor.uniform_, torch.Tensor.normal_})
"""The functions that fill a new layer's weights."""
JOINS = frozenset({torch.stack, torch.cat})


class DiskTensors:
    """Makes tensors in files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def empty(self, shape: Iterable[int], dtype: torch.dtype) -> torch.Tensor:
        """A new tensor.

        Raises:
            StageFailed: the disk has no room for it.
        """
        size = torch.Size(shape)
        if not size.numel():
            return torch.empty(size, dtype=dtype)
        with tempfile.NamedTemporaryFile(dir=self.folder) as file:
            try:
                # A hole in the file for which the disk has no room later would kill the process (SIGBUS).
                os.posix_fallocate(file.fileno(), 0, size.numel() * dtype.itemsize)
            except OSError as error:
                raise StageFailed(
                    f"{self.folder}: no room for the weights ({error.strerror}): an export needs three times their "
                    "size on the disk while it is made."
                ) from None
            return torch.from_file(file.name, shared=True, size=size.numel(), dtype=dtype).view(size)

    def stored(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself if it fills a file of its own, otherwise a copy that does."""
        if is_on_disk(tensor) and tensor.nbytes == tensor.untyped_storage().nbytes() and tensor.is_contiguous():
            return tensor
        return self.copied(tensor, tensor.dtype)

    def copied(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """A copy of some type in a file of its own; the memory never holds it."""
        return self.empty(tensor.shape, dtype).copy_(tensor)


def is_on_disk(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.untyped_storage().filename is not None


class OnDisk(TorchFunctionMode):
    """Puts tensors made under it into files: a new model's parameters, and experts that are joined.

    Layers make their parameters by ``torch.empty``; drawing them is skipped, for they are about to be loaded. Experts
    are joined by ``stack`` and ``cat``, in transformers and in torchtitan's adapters. Other tensors stay in memory.
    """

    def __init__(self, disk: DiskTensors) -> None:
        super().__init__()
        self.disk = disk

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.empty and str(given.get("device") or "cpu") == "cpu":
            shape = given.get("size", args[0] if args and not isinstance(args[0], int) else args)
            return self.disk.empty(shape, given.get("dtype") or torch.get_default_dtype())
        if func in DRAWS and is_on_disk(args[0]):
            return args[0]
        if func in JOINS and args and all(part.device.type == "cpu" for part in args[0]):
            joined = func([torch.empty_like(part, device="meta") for part in args[0]], *args[1:], **given)
            given = {**given, "out": self.disk.empty(joined.shape, joined.dtype)}
        return func(*args, **given)
